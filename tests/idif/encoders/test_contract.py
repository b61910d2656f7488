"""The contract of `tests.encoder_contract`, for every kind of encoder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from idif.data.index import Index
from idif.encoders.options import EncoderOptions
from tests.encoder_contract import (
    CHECKS,
    Case,
    Check,
    check_a_store_loads_the_same_encoder,
    check_weights_round_trip,
    check_wrong_weights_are_refused,
)
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index
from tests.helpers.tiny_vae import installed_vae

PICTURES = (
    EncoderOptions(resize="lanczos"),
    EncoderOptions(resize="bicubic"),
    EncoderOptions(crop_from=96),
    EncoderOptions(neck="aligned"),
    EncoderOptions(neck="average-pool"),
    EncoderOptions(neck="max-pool"),
)
CASES = {
    "resnet18": Case(
        "resnet18",
        others=(*PICTURES, EncoderOptions(padding="reflect"), EncoderOptions(taps=(2, 4, 8, 16, 32))),
    ),
    "resnet18-pooled": Case(
        "resnet18",
        EncoderOptions(neck="average-pool", padding="reflect", resize="lanczos", crop_from=96),
        ill_fitting=(16, 40),
    ),
    "efficientnet": Case(
        "timm:test_efficientnet",
        EncoderOptions(taps=(2, 4, 8, 16), neck="aligned"),
        others=(EncoderOptions(taps=(4, 8)), *PICTURES[:3], *PICTURES[4:], EncoderOptions(padding="reflect")),
    ),
    "vit": Case(
        "timm:test_vit",
        EncoderOptions(taps=(1, 3)),
        others=(EncoderOptions(taps=(3,)), *PICTURES),
        ill_fitting=(40, 72),
    ),
    "dinov3": Case("vit_small_patch16_dinov3", EncoderOptions(taps=(0, 1), neck="aligned")),
    "vae": Case("tiny_vae", EncoderOptions(crop_from=72), others=PICTURES[:2], ill_fitting=(36,)),
    "taef2": Case(
        "taef2", EncoderOptions(resize="bicubic"), others=(PICTURES[0], PICTURES[2]), ill_fitting=(36,)
    ),
    "dinov3-weld": Case("dinov3_tiny_b20_b31", image_size=32),
}


@pytest.fixture(scope="module", autouse=True)
def tiny_vae() -> Iterator[None]:
    with installed_vae():
        yield


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Index]:
    root, index = tmp_path_factory.mktemp("data"), tiny_index(("cup",), train=2, test=1)
    make_tiny_realiad(root, index)
    return root, index


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case: Case, check: Check) -> None:
    check(case)


def test_weights_round_trip(case: Case, tmp_path: Path) -> None:
    check_weights_round_trip(case, tmp_path)


def test_wrong_weights_are_refused(case: Case, tmp_path: Path) -> None:
    check_wrong_weights_are_refused(case, tmp_path)


def test_a_store_loads_the_same_encoder(case: Case, data: tuple[Path, Index], tmp_path: Path) -> None:
    check_a_store_loads_the_same_encoder(case, *data, tmp_path)
