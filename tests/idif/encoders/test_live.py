"""LiveFeatures meets the contract, and a bad file is named in its turn."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from idif.data.features import FeatureSource
from idif.data.images import load_image
from idif.encoders.encode import EncoderSet
from idif.encoders.live import LiveFeatures
from idif.encoders.preparation import normalize
from idif.errors import ConfigError, DatasetError
from idif.prefetch import prefetch_map
from tests import feature_source_contract as contract
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, untrained
from tests.helpers.tiny_training import live_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> LiveFeatures:
    torch.set_num_threads(1)
    root, index = tmp_path_factory.mktemp("data"), tiny_index()
    make_tiny_realiad(root, index)
    return live_source(root, index, 32)


@pytest.mark.parametrize("check", contract.CONTRACT, ids=lambda check: check.__name__)
def test_contract(source: LiveFeatures, check: Callable[[FeatureSource], None]) -> None:
    check(source)


def test_features_are_the_encoders(tmp_path: Path) -> None:
    index, encoder = tiny_index(["cup"], 1, 1), untrained()
    make_tiny_realiad(tmp_path, index)
    (batch,) = LiveFeatures(tmp_path, index, EncoderSet((encoder,), 32), torch.device("cpu")).batches([1], 1)
    view = index.samples[1].views[2]
    assert view is not None
    image = torch.from_numpy(load_image(tmp_path / view.image, 32)[0])
    with torch.no_grad():
        wanted = encoder.module(normalize(image[None]))
    for name, x in wanted.items():
        torch.testing.assert_close(batch.arrays[name][0, 2], x[0], rtol=1e-5, atol=1e-5)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    index = tiny_index(["cup"], 3, 0, absent=False)
    make_tiny_realiad(tmp_path, index)
    view = index.samples[2].views[0]
    assert view is not None
    path = tmp_path / view.image
    path.write_bytes(path.read_bytes()[:200])
    batches = live_source(tmp_path, index, 32).batches([0, 1, 2], 1)
    assert len(next(batches)) == len(next(batches)) == 1
    before = threading.active_count()
    with pytest.raises(DatasetError, match=path.name):
        next(batches)
    assert threading.active_count() < before


def test_an_image_size_the_strides_do_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size: expected a positive multiple of 16, got 40"):
        live_source(tmp_path, tiny_index(), 40)


def test_ahead_is_bounded_and_in_order() -> None:
    started: list[int] = []
    release = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item:
            release.wait(10)
        return -item

    results = prefetch_map(work, range(100), workers=4, depth=5)
    assert next(results) == 0
    assert max(started) <= 5  # one handed out, five waiting
    release.set()
    assert list(results) == [-i for i in range(1, 100)]
