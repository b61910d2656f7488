"""Atomic writes: complete or absent, also where the writer fails or several write at once."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from idif.files import TEMPORARY, replace_file, replacing
from idif.training.checkpoint import save_checkpoint
from idif.training.checkpoint_files import TrainingProgress


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / f"a.txt{TEMPORARY}").write_text("left by a killed process, and longer")
    replace_file(path, "first\n")
    replace_file(path, b"second\n")
    assert path.read_bytes() == b"second\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("unique", [False, True])
def test_a_writer_that_fails_leaves_the_file_before(tmp_path: Path, unique: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def interrupted() -> None:
        with replacing(path, unique=unique) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_unique_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path, unique=True) as slow:
        slow.write_text("slow, but whole")
        with replacing(path, unique=True) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow, but whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
def test_the_umask_decides_who_may_read_weights(tmp_path: Path) -> None:
    """The library that writes weights gives them to their owner alone, and runs are shared."""

    usual = tmp_path / "usual"
    usual.write_text("x")
    with replacing(tmp_path / "w.safetensors") as partial:
        save_file({"x": torch.zeros(1)}, partial)
    save_checkpoint(tmp_path, {"x": torch.zeros(1)}, {}, TrainingProgress(1, 1, finished=True))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert {path.stat().st_mode for path in written} == {usual.stat().st_mode}
