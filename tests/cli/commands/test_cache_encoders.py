"""`idif cache build` with other encoders and options: what a store holds, and what configs ask of it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cache import FeatureStore
from cli.__main__ import run
from cli.workflow.report import read_images
from cli.workflow.sources import Sources
from idif.config.loader import resolve
from idif.config.sections import Config
from idif.errors import StoreError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.idif.config import IDIFConfig
from idif.methods.protocol import Needs
from tests.helpers.tiny_data import tiny_index, tree
from tests.helpers.tiny_store import build_by_command

INDEX = tiny_index(["cup"], train=2, test=2)
CPU = torch.device("cpu")
ALIGNED = ("--encoder=timm:test_efficientnet", "--taps=2,4,8,16", "--neck=aligned", "--crop-from=80")


def build(data: Path, store: Path, *more: str) -> int:
    return build_by_command(data, store, 64, *more)


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "s"
    assert build(data, path, *ALIGNED, "--no-store-images") == 0
    return path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error")]
    return line


def test_the_store_holds_the_neck_s_array_and_no_images(store: Path) -> None:
    opened = FeatureStore.open(store)
    assert list(opened.spec.arrays) == ["aligned", "masks"]
    (encoder,) = opened.spec.encoders
    assert encoder.preparation["options"] == {
        "taps": [2, 4, 8, 16],
        "neck": "aligned",
        "padding": "zeros",
        "resize": "bilinear",
        "crop_from": 80,
    }
    assert run(["cache", "verify", str(store), "--json"]) == 0


def test_it_is_verified_deeply_against_the_data(
    data: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cache", "verify", str(store), "--deep", f"--root={data}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_encoded"] == 4


OTHERS = [
    ("--taps=4,8,16", r"\.options\.taps: \[2, 4, 8, 16\], not \[4, 8, 16\]; "),
    ("--crop-from=96", r"preparation\.options\.crop_from: 80, not 96$"),
    ("--store-images", "stores_images: False, not True"),
]


@pytest.mark.parametrize(("option", "part"), OTHERS)
def test_other_options_do_not_continue_it(
    data: Path, store: Path, capsys: pytest.CaptureFixture[str], option: str, part: str
) -> None:
    before = tree(store)
    given = [*ALIGNED, "--no-store-images", option]
    assert build(data, store, *given) == 2
    assert re.search(part, error(capsys))
    assert tree(store) == before


REFUSED = [
    (
        ["--encoder=timm:test_efficientnet", "--image-size=40"],
        "image_size: expected a positive multiple of 16",
    ),
    (["--crop-from=48"], "crop_from: expected at least the image size 64, got 48"),
    (["--taps=three"], "--taps: expected numbers such as 4,8,16, got 'three'"),
    (["--taps=3"], "taps: resnet18 has strides 2, 4, 8, 16, 32, got 3"),
    (["--encoder=timm:nope"], "encoder: timm has no model 'nope'"),
    (["--encoder=resnet18", "--encoder=resnet34", "--neck=aligned"], "are those of a single encoder"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_is_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert build(data, tmp_path / "s", *options) == 2
    assert message in error(capsys)
    assert not (tmp_path / "s").exists()


def config_of(data: Path | None, store: Path, **sections: Any) -> Config:
    given = {"data": {"root": data and str(data)}, "cache": {"store": str(store)}, **sections}
    return resolve(given, source="test")[0]


def test_settings_that_differ_from_the_store_s_are_named(data: Path, store: Path) -> None:
    for key, value, there in (
        ("neck", "none", "aligned"),
        ("taps", [4, 8], r"\[2, 4, 8, 16\]"),
        ("crop_from", 96, "80"),
        ("resize", "lanczos", "bilinear"),
        ("padding", "reflect", "zeros"),
    ):
        with pytest.raises(StoreMismatch, match=rf"^teacher\.{key}: .*, but .* was built with {there}$"):
            Sources(config_of(data, store, teacher={key: value}), CPU)
    Sources(config_of(data, store, teacher={"neck": "aligned", "taps": [2, 4, 8, 16], "crop_from": 80}), CPU)


@pytest.mark.parametrize(
    ("built", "asked", "said"),
    [
        ("untrained", "untrained", None),
        ("file", "moved.pth", None),
        ("imagenet", "imagenet", None),
        ("training", "untrained", None),
        ("file", "imagenet", "note: teacher.weights: imagenet is not read"),
        ("imagenet", "moved.pth", "note: teacher.weights: moved.pth is not read"),
        ("untrained", "imagenet", "error"),
        ("imagenet", "untrained", "error"),
        ("untrained", "moved.pth", "error"),
    ],
)
def test_weights_beside_a_store_are_not_loaded(
    store: Path, monkeypatch: pytest.MonkeyPatch, built: str, asked: str, said: str | None
) -> None:
    opened, notes = FeatureStore.open(store), list[str]()
    spec = replace(opened.spec, encoders=(replace(opened.spec.encoders[0], weights=built),))
    monkeypatch.setattr(FeatureStore, "spec", spec)
    monkeypatch.setattr("cli.workflow.sources.note", notes.append)
    config = config_of(None, store, teacher={"weights": asked})
    if said == "error":
        with pytest.raises(
            StoreMismatch, match=rf"^teacher\.weights: {asked}, but .* was built with {built} weights, "
        ):
            Sources(config, CPU)
        return
    Sources(config, CPU)
    assert [said] * (said is not None) == [heard[: len(said or "")] for heard in notes]


def test_a_method_s_own_defaults_demand_nothing_of_a_store(
    data: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preferred = {"encoder": "tf_efficientnet_b4", "image_size": 224, "neck": "none", "taps": [2, 4]}
    monkeypatch.setattr(IDIFConfig, "section_defaults", {"teacher": preferred})
    config = config_of(data, store)
    assert config.teacher.encoder == "tf_efficientnet_b4"
    assert config.teacher.options().taps == (2, 4)
    Sources(config, CPU)
    with pytest.raises(StoreMismatch, match=r"teacher\.encoder: resnet18, but"):
        Sources(config_of(data, store, teacher={"encoder": "resnet18"}), CPU)


def test_photographs_come_from_the_data_where_the_store_has_none(data: Path, store: Path) -> None:
    wanted = [sample.sample_id for sample in INDEX.samples if sample.split == "test"]
    sources = Sources(config_of(data, store), CPU, compare=False)
    images = read_images(sources, "cup", "test", wanted)
    assert sorted(images) == sorted(wanted)
    assert all(image.shape == (3, 3, 64, 64) for image in images.values())
    with pytest.raises(StoreError, match=r"holds no images; name the dataset with data\.root"):
        read_images(Sources(config_of(None, store), CPU), "cup", "test", wanted)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the method of configs read the given arrays."""

    def read(*names: str) -> None:
        method: Any = SimpleNamespace(needs=Needs(names, names))
        spec: Any = replace(METHODS["idif"], build=lambda config, context: method)
        monkeypatch.setitem(METHODS, "idif", spec)

    return read


def test_a_config_s_method_decides_whether_images_are_stored(
    data: Path, tmp_path: Path, reading: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("method: {name: idif}\nteacher: {taps: [16]}\n", encoding="utf-8")

    def stored(name: str, *more: str) -> list[str]:
        assert build(data, tmp_path / name, f"--config={config}", *more) == 0
        capsys.readouterr()
        return list(FeatureStore.open(tmp_path / name).spec.arrays)

    reading("layer3")
    assert stored("without") == ["layer3", "masks"]
    assert stored("asked", "--set=cache.images=true") == ["layer3", "images", "masks"]
    assert stored("option", "--store-images") == ["layer3", "images", "masks"]
    reading("layer3", "images")
    assert stored("read") == ["layer3", "images", "masks"]
    reading("aligned")
    assert build(data, tmp_path / "other", f"--config={config}") == 2
    assert "method.name: idif reads aligned, but the encoder gives layer3; see teacher.taps" in error(capsys)


def test_a_plan_states_the_bytes_of_each_array(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["cache", "plan", "realiad", f"--root={data}", f"--store={tmp_path / 's'}", "--image-size=64"]
    command += ["--neck=average-pool", "--no-store-images"]
    assert run([*command, "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["sample_bytes"]
    views = len(INDEX.view_numbers)
    assert sizes == {
        "p1": views * 2 * 64 * 8 * 8,
        "p2": views * 2 * 128 * 4 * 4,
        "p3": views * 2 * 256 * 2 * 2,
        "masks": views * 64 * 64,
    }
    assert run(command) == 0
    assert "p1 24,576" in capsys.readouterr().out
