"""Runs of one folder of textures share one bank on disk, beside their store or beside each other."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.workflow.sources import Sources
from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import TextureBank, load_textures
from idif.data.features import FeatureSpec
from tests.helpers.hostile_pickle import Hostile


def config(home: Path, name: str, store: Path | None) -> Config:
    textures = {"textures": str(home / "paint")}
    run = {"name": name, "dir": str(home / "runs")}
    (made,) = resolve({"corruption": textures, "run": run, "cache": {"store": store}}, source="test")
    return made


@pytest.mark.parametrize("stored", [True, False])
def test_two_runs_share_a_bank_until_the_folder_changes(world: Path, tmp_path: Path, stored: bool) -> None:
    (tmp_path / "paint" / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "paint" / "a.png")
    Image.fromarray(pixels[1]).save(tmp_path / "paint" / "deep" / "b.bmp")
    store = tmp_path / "stores" / "s.zarr" if stored else None
    if store is not None:
        shutil.copytree(world / "store.zarr", store)

    def bank(name: str) -> TextureBank:
        sources = Sources(config(tmp_path, name, store), torch.device("cpu"))
        made: TextureBank = sources.resources(FeatureSpec((), 16, "float32"))["textures"]
        return made

    first, second = bank("one"), bank("two")
    place = tmp_path / ("stores" if stored else "runs")
    (file,) = place.glob("textures-*")
    assert file.name == f"textures-{first.fingerprint[:16]}.npy"
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.images, first.images)
    made = file.stat().st_mtime_ns
    assert not list(tmp_path.glob("runs/*/textures-*"))

    Image.fromarray(pixels[0]).save(tmp_path / "paint" / "deep" / "b.bmp")
    third = bank("one")
    assert third.fingerprint != first.fingerprint
    assert len(list(place.glob("textures-*"))) == 2
    assert file.stat().st_mtime_ns == made, "the other bank is left as it was"


def test_a_bank_is_no_pickle(tmp_path: Path) -> None:
    images = load_textures("procedural", 16, tmp_path).images.clone()
    (file,) = tmp_path.glob("textures-*.npy")
    mark = tmp_path / "mark"
    file.unlink()  # it is mapped into memory
    np.save(file, np.array([Hostile(mark)], dtype=object), allow_pickle=True)
    again = load_textures("procedural", 16, tmp_path)
    assert torch.equal(again.images, images), "it is made anew"
    assert not mark.exists()
