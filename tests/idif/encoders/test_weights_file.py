"""Files that are not weights are named as what they are."""

from pathlib import Path

import pytest
import torch

from idif.encoders.weights_file import read_weights_file
from idif.errors import WeightsError
from tests.helpers.hostile_pickle import Hostile

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pth.tar"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "is a pointer of Git LFS"),
        ("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is an HTML page"),
        ("<html>", "is an HTML page"),
        ("hello", "not readable as encoder weights"),
    ],
)
def test_pointers_and_pages_are_named(tmp_path: Path, name: str, content: str, what: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError) as caught:
        read_weights_file(path)
    assert str(caught.value).startswith(f"{path}: {what}")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_wrappers_are_removed(tmp_path: Path, key: str) -> None:
    weights = {"module.conv.weight": torch.ones(2), "module.bias": torch.zeros(1)}
    torch.save({"epoch": 3, key: weights}, tmp_path / "w.pth.tar")
    assert sorted(read_weights_file(tmp_path / "w.pth.tar")) == ["bias", "conv.weight"]
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="expected a dictionary of tensors"):
        read_weights_file(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_weights_runs_no_code(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "w.pth"
    content = {"state_dict": {"w": torch.ones(1)}, "args": Hostile(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="not readable as encoder weights"):
        read_weights_file(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the test must be able to fail"
