"""DeCo-Diff by the command line: variants, a decoder at evaluation alone, and the authors' checkpoints."""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from cache import FeatureStore
from cli.__main__ import run
from idif.encoders.frozen import FrozenEncoder
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.helpers.tiny_vae import installed_vae
from tests.idif.methods.deco_diff.latent_unet import AuthorsUNet

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
        "train: {epochs: 1, batch_size: 2, accumulate: 1, convolutions: direct, lr: 0.01,"
        " schedule: {warmup_start: 1.0}}\n"
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
    check_reconstructions(folder, capsys)
    check_stored_decoded_views(home, folder, capsys)
    code, exported = answer(capsys, "export", str(folder), "--format=torchscript")
    assert code == 0
    assert exported["files"][0]["difference"] < 1e-3


def check_reconstructions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are images in the report, unless they are of other settings than the predictions."""
    with h5py.File(folder / "reconstruction.h5") as file:
        assert file["images"].shape == (3, 1, 3, 32, 32)
        assert file["images"].dtype == np.uint8
        assert file["mu"].dtype == np.float16
    assert answer(capsys, "report", str(folder))[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    strips = page.split("Reconstructions</h5>")[1]
    for name in ("photograph", "reconstruction", "mask", "anomaly map", "arithmetic", "image", "latent"):
        assert f"<span>{name}</span>" in strips, name
    assert answer(capsys, "eval", str(folder), "--set=method.reverse_steps=3")[0] == 0
    assert answer(capsys, "report", str(folder))[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Reconstructions</h5>" not in page
    assert "those kept are of other weights or settings" in page


def check_stored_decoded_views(home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store of the test split may hold what the decoder makes of the clean latents: the same maps."""
    config, store = f"--config={home / 'c.yaml'}", home / "decoded.zarr"
    build = [
        "cache",
        "build",
        "realiad",
        config,
        "--split=test",
        f"--store={store}",
        "--set=teacher.decoded=true",
    ]
    code, said = answer(capsys, *build)
    assert code == 2
    assert "with cache.variants=[]" in said["error"]
    assert answer(capsys, *build, "--set=cache.variants=[]")[0] == 0
    assert list(FeatureStore.open(store).spec.arrays) == ["mu", "logvar", "decoded", "masks"]

    def maps(*settings: str) -> Any:
        assert answer(capsys, "eval", str(folder), *settings)[0] == 0
        with h5py.File(folder / "predictions.h5") as file:
            return file["maps_image"][:].astype(np.float32)

    live = maps()
    assert live.max() > 0
    decoded: list[int] = []
    once = FrozenEncoder.decode

    def counted(encoder: FrozenEncoder, latents: torch.Tensor) -> torch.Tensor:
        decoded.append(len(latents))
        return once(encoder, latents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenEncoder, "decode", counted)
        stored = maps(f"--set=cache.store={store}")
    assert decoded == [3], "the corrected latents alone"
    np.testing.assert_allclose(stored, live, atol=0.01)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ["train", "--resume", "--set=cache.variants=[plain]"],
            "cache.variants is ['plain'], but the run was",
        ),
        (["eval", "--set=method.reverse_steps=7"], "2, 3, 4, 5 or 10"),
        (["predict", "--set=method.reverse_steps=1"], "2, 3, 4, 5 or 10"),
        (["predict", "--category=bolt"], "--category 'bolt': the run has screw"),
        (["predict", "--category=auto"], "has one category, screw"),
        (["eval", "--set=method.size=S", "--set=method.width=null"], "does not fit the run's config"),
        (["eval", "--set=method.gating.used=true"], "does not fit the run's config"),
    ],
)
def test_mistakes_are_one_sentence_with_exit_code_2(
    home: Path, capsys: pytest.CaptureFixture[str], line: list[str], message: str
) -> None:
    config, folder = f"--config={home / 'c.yaml'}", home / "runs" / "it"
    if not (folder / "all").exists():
        answer(capsys, "cache", "build", "realiad", config)
        answer(capsys, "train", config)
    command, *rest = line
    photograph = next((home / "data").rglob("*.jpg"))
    given = {"train": [config], "eval": [str(folder)], "predict": [str(folder), str(photograph)]}[command]
    code, said = answer(capsys, command, *given, *rest)
    assert code == 2
    assert message in said["error"]
    assert "\n" not in said["error"].strip()


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
