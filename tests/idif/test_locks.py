"""A lock names its holder, leaves nothing behind, and is never held twice."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from idif.locks import LockHeld, file_lock

ROUNDS = 200


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with file_lock(path), pytest.raises(LockHeld, match=f"process {os.getpid()} on "), file_lock(path):
        pass
    with file_lock(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_just_given_back_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removes the file first, so that a refusal without a file is out of date."""
    path, acquire, refused = tmp_path / "a.lock", FileLock.acquire, list[bool]()

    def once_refused(lock: FileLock, *arguments: Any, **options: Any) -> Any:
        if not refused:
            refused.append(True)
            raise Timeout(str(path))
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", once_refused)
    with file_lock(path):
        assert refused


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
def test_a_lock_whose_file_is_removed_counts_as_none(tmp_path: Path) -> None:
    """A process that opened the file before its holder removed it must not lock what nobody sees."""
    path = tmp_path / "a.lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    lock_file, seen = os.open, list[int]()

    def opened_before(name: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(name) == str(path) and not seen:
            seen.append(lock)
            path.unlink()
            return lock
        return lock_file(name, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened_before)
        with file_lock(path):
            assert seen
            assert path.exists(), "what is held is the file that others will find"
            with pytest.raises(LockHeld), file_lock(path):
                pass


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
