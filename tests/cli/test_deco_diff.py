"""DeCo-Diff by the command line: variants, a decoder at evaluation alone, and the authors' checkpoints."""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from cache import FeatureStore
from cli.__main__ import run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.helpers.tiny_vae import installed_vae
from tests.idif.methods.decodiff.latent_unet import AuthorsUNet

CATEGORY = "screw"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("deco-diff")
    index = tiny_index(categories=(CATEGORY,), train=3, test=3, views=1, absent=False)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    (home / "c.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}'}}\n"
        f"cache: {{store: '{(home / 's.zarr').as_posix()}'}}\n"
        "teacher: {encoder: tiny_vae, weights: untrained, image_size: 32, crop_from: 40}\n"
        "method: {name: deco-diff, size: XS, width: 32, patch_sizes: [1, 2], patch_probabilities: [0.5, 0.5],"
        " reverse_steps: 2}\n"
        "train: {epochs: 1, batch_size: 2, accumulate: 1, convolutions: direct}\n"
        f"run: {{name: it, dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    with installed_vae():
        yield home


def answer(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, Any]:
    code = run([*line, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_from_the_store_to_a_prediction(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = f"--config={home / 'c.yaml'}", home / "runs" / "it"
    assert answer(capsys, "cache", "build", "realiad", config)[0] == 0
    store = FeatureStore.open(home / "s.zarr")
    assert store.spec.variants == ("plain", "shifted")
    assert list(store.spec.arrays) == ["mu", "logvar", "masks"]
    turned = "--set=cache.variants=[plain,rotated180]"
    code, said = answer(capsys, "train", config, turned)
    assert code == 2
    assert "cache.variants: rotated180, but" in said["error"]
    assert "has plain, shifted alone" in said["error"]
    assert not folder.exists()
    assert answer(capsys, "train", config)[0] == 0
    code, metrics = answer(capsys, "eval", str(folder), "--save-reconstruction")
    assert code == 0
    assert set(metrics["categories"][CATEGORY]["maps"]) == {"map", "arithmetic", "image", "latent"}
    assert "geometric mean" in metrics["protocol"]["map"]
    with h5py.File(folder / "predictions.h5") as file:
        assert file["maps_image"].shape == file["maps"].shape
    photograph = next((home / "data").rglob("*NG*_C1_*.jpg"), next((home / "data").rglob("*_C1_*.jpg")))
    code, predicted = answer(capsys, "predict", str(folder), str(photograph))
    assert code == 0
    assert len(predicted["parts"]) == 1
    code, exported = answer(capsys, "export", str(folder), "--format=torchscript")
    assert code == 0
    assert exported["files"][0]["difference"] < 1e-3


def test_an_authors_checkpoint_becomes_a_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = f"--config={home / 'c.yaml'}", home / "runs" / "imported"
    answer(capsys, "cache", "build", "realiad", config)
    torch.manual_seed(0)
    net = AuthorsUNet(4, 32, 4, 64, 15)
    torch.save({"model": net.state_dict(), "args": Namespace(dataset="mvtec")}, home / "last.pt")
    line = ("import-weights", "deco-diff", str(home / "last.pt"), config, "--set=run.name=imported")
    assert answer(capsys, *line)[0] == 0
    code, metrics = answer(capsys, "eval", str(folder))
    assert code == 0
    assert metrics["categories"][CATEGORY]["counts"]["samples"] == 3
