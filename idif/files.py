"""Writing to disks: a file or folder appears under its name complete and durable, or not at all.

Every write of every command goes through this module. An operation that fails removes what it began and
raises an `IdifError` that names the path: `CannotFinish` where the disk is at fault (full, over quota,
failing), else the caller's ``refused``, since another path helps.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from idif.errors import CannotFinish, IdifError, PathError

TEMPORARY = ".tmp"
"""Suffix of a file or folder that is being written beside its place; a killed process leaves it behind."""

_MISTAKES = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EPERM,
        errno.EROFS,
    )
)
"""Errors of a path that cannot be written on any day."""
_NO_SPACE = frozenset((errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)))

Refusal = type[IdifError]
"""The error of a path that cannot be written, where another one can."""


def write_failed(path: Path, error: OSError, refused: Refusal = PathError) -> IdifError:
    """The error for a failed write of ``path``."""
    if error.errno in _NO_SPACE:
        return CannotFinish(f"{path}: no space left on the device")
    reason = error.strerror or str(error) or type(error).__name__
    kind = refused if error.errno in _MISTAKES else CannotFinish
    return kind(f"{path}: cannot be written ({reason})")


@contextlib.contextmanager
def writing(path: Path, refused: Refusal = PathError) -> Iterator[None]:
    """Context in which an `OSError` is the failed write of ``path``; raises as `write_failed`."""
    try:
        yield
    except OSError as error:
        raise write_failed(path, error, refused) from error


@contextlib.contextmanager
def replacing(path: Path, *, unique: bool = False, refused: Refusal = PathError) -> Iterator[Path]:
    """A temporary path beside ``path``; renamed to ``path`` on success, removed if an exception passes.

    Args:
        unique: use a unique name, for processes that may write the same file at the same time. Without it,
            the next process overwrites a file that a killed one left behind.

    Raises:
        The exceptions of `writing`.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}") if unique else temporary(path)
    with writing(path, refused):
        try:
            yield partial
            _publish(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def replace_file(path: Path, data: bytes | str, refused: Refusal = PathError) -> None:
    """Write a file; text as UTF-8. Raises as `writing`."""
    with replacing(path, refused=refused) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file. NaN and infinity are refused: they are not JSON. Raises as `writing`."""
    replace_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class SteadyFile:
    """A new binary file for libraries that crash or say nothing useful where a write fails.

    The first error is kept, later writes are dropped, and `finish` raises it.
    """

    def __init__(self, path: Path) -> None:
        """Create the file; raises `OSError`."""
        self._file = path.open("w+b", buffering=0)
        self._position = 0
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; raises as `check`, also in place of an `Exception` that followed from the error."""
        self._file.close()
        if kind is None or issubclass(kind, Exception):
            self.check()

    def check(self) -> None:
        """Raise the first error, if there is one."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Make the content durable; raises as `check`."""
        self.check()
        os.fsync(self._file.fileno())

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the current position; returns the number of bytes, also after an error."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._error is None:
                self._file.seek(self._position + size - len(left))
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            self._error = error
        self._position += size
        return size

    def readinto(self, into: memoryview) -> int:
        """Read at the current position; zeros where the file has no bytes."""
        view = memoryview(into).cast("B")
        done = 0
        try:
            self._file.seek(self._position)
            while done < len(view) and (read := self._file.readinto(view[done:])):
                done += read
        except OSError as error:
            self._error = self._error or error
        view[done:] = bytes(len(view) - done)
        self._position += len(view)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        """Read at the current position."""
        data = bytearray(max(0, self._size() - self._position) if size < 0 else size)
        self.readinto(memoryview(data))
        return bytes(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def truncate(self, size: int) -> int:
        """Cut or extend the file."""
        try:
            if self._error is None:
                self._file.truncate(size)
        except OSError as error:
            self._error = error
        return size

    def flush(self) -> None:
        """Nothing to do: nothing is buffered."""

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


@contextlib.contextmanager
def streaming(path: Path, *, refused: Refusal = PathError) -> Iterator[SteadyFile]:
    """A file for a library to write; it becomes ``path`` on success. Raises as `writing`."""
    with replacing(path, refused=refused) as partial, SteadyFile(partial) as file:
        yield file


def append(path: Path, data: bytes, refused: Refusal = PathError, *, durable: bool = True) -> None:
    """Append to a file, all of ``data`` or nothing. Raises as `writing`.

    Args:
        durable: whether the data is on the disk when this returns.
    """
    with writing(path, refused), path.open("ab", buffering=0) as file:
        before, left = file.seek(0, os.SEEK_END), memoryview(data)
        try:
            while left:
                left = left[file.write(left) or 0 :]
            if durable:
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def make_folder(path: Path, refused: Refusal = PathError) -> None:
    """Create a folder and its parents, unless it exists; durable when this returns. Raises as `writing`."""
    if path.is_dir():
        return
    with writing(path, refused):
        missing, place = [], path
        while not place.exists() and place != place.parent:
            missing.append(place)
            place = place.parent
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)


@contextlib.contextmanager
def replacing_folder(partial: Path, path: Path, refused: Refusal = PathError) -> Iterator[None]:
    """Context that fills the new folder ``partial``; it becomes ``path`` on success and is removed otherwise.

    Args:
        partial: on the same disk as ``path``; one that a killed process left behind is removed.
        path: a name that is free, or that of an empty folder.

    Raises:
        The exceptions of `writing`.
    """
    with writing(path, refused):
        try:
            remove_tree(partial)
            make_folder(partial, refused)
            yield
            if path.exists():
                path.rmdir()  # Windows does not rename onto a folder
            publish_folder(partial, path)
        finally:
            with contextlib.suppress(OSError):
                remove_tree(partial)


def publish_folder(partial: Path, path: Path) -> None:
    """Rename a complete folder after making everything in it durable.

    Raises:
        OSError: a file cannot be synced, or the folder cannot be renamed.
    """
    sync_tree(partial)
    rename(partial, path)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder that is durable, and make the new name durable too; raises `OSError`."""
    os.replace(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove_file(path: Path) -> None:
    """Remove a file, if there is one; durable when this returns. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it, if there is one; raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def require_writable(folder: Path, refused: Refusal = PathError) -> None:
    """Refuse a folder in which no file can be created; the nearest existing parent of one to be made.

    Raises:
        The exceptions of `writing`.
    """
    with writing(folder, refused), tempfile.TemporaryFile(dir=_existing(folder)) as file:
        file.write(b"x")


def is_writable(folder: Path) -> bool:
    """Whether `require_writable` accepts a folder."""
    try:
        require_writable(folder)
    except IdifError:
        return False
    return True


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what does not fit on the disk.

    Args:
        folder: need not exist.
        needed: bytes.
        what: what needs them, the subject of the sentence.

    Raises:
        CannotFinish: states the required and the free space.
    """
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError:
        return
    if needed > free:
        raise CannotFinish(f"{folder}: {what} needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free")


def _existing(folder: Path) -> Path:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def apply_umask(path: Path) -> None:
    """Give a file the rights of any new one; some libraries write files that only their owner may read."""
    path.chmod(0o666 & ~_UMASK)


def _read_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_UMASK = _read_umask()
"""Read once: it belongs to the process, and other threads may be writing later."""


def temporary(path: Path) -> Path:
    """Temporary path under which ``path`` is written."""
    return path.with_name(path.name + TEMPORARY)


def sync_file(path: Path) -> None:
    """Make a file's content durable; raises `OSError`."""
    # Windows syncs no file that is opened for reading
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything below it durable; raises `OSError`."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(place) / name)
        sync_folder(Path(place))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, if the system supports it; raises `OSError`."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems sync no folders
                raise
        finally:
            os.close(descriptor)


def _publish(partial: Path, path: Path) -> None:
    """Rename a complete file to ``path``, durable after a power cut."""
    apply_umask(partial)
    sync_file(partial)
    rename(partial, path)
