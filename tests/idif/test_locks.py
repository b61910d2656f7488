"""A lock names its holder, leaves nothing behind, and is never held twice."""

import multiprocessing
import os
from pathlib import Path

import pytest

from idif.locks import LockHeld, file_lock

ROUNDS = 200


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with file_lock(path), pytest.raises(LockHeld, match=f"process {os.getpid()} on "), file_lock(path):
        pass
    with file_lock(path):
        pass
    assert list(tmp_path.iterdir()) == []


def count(path: Path) -> None:
    """Raise a number under the lock, without any other protection."""
    done = 0
    while done < ROUNDS:
        try:
            with file_lock(path / "a.lock"):
                number = int((path / "number").read_text())
                (path / "number").write_text(str(number + 1))
                done += 1
        except LockHeld:
            pass


def test_processes_that_take_turns_never_meet(tmp_path: Path) -> None:
    """Each holder removes the file at the end, which another may just have opened."""
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == str(3 * ROUNDS)
