"""Disks that lose power, and disks that take only so many bytes."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest


class PowerCut:
    """Records which contents of files and folders were synced, while installed.

    Whatever was written after the last sync of its file, or named after that of its folder, may be gone
    after a power cut.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._files: dict[int, tuple[int, int]] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self.renamed: list[str] = []
        """Names that files and folders were given, in order."""
        self.too_early: list[str] = []
        """Those that were given before the content was durable."""
        sync, replace = os.fsync, os.replace

        def recorded_sync(descriptor: int) -> None:
            sync(descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(descriptor) as entries:
                    self._folders[status.st_ino] = {entry.name: entry.inode() for entry in entries}
            else:
                self._files[status.st_ino] = (status.st_size, status.st_mtime_ns)

        def recorded_replace(source: Path, target: Path) -> None:
            self.renamed.append(Path(target).name)
            if self.lost(Path(source)):
                self.too_early.append(Path(target).name)
            replace(source, target)

        patch.setattr(os, "fsync", recorded_sync)
        patch.setattr(os, "replace", recorded_replace)

    def lost(self, path: Path) -> list[str]:
        """The paths, of a file or of a folder and everything below it, that a power cut may still take."""
        if path.is_file():
            status = path.stat()
            same = self._files.get(status.st_ino) == (status.st_size, status.st_mtime_ns)
            return [] if same else [str(path)]
        known = self._folders.get(path.stat().st_ino, {})
        names = [str(p) for p in path.iterdir() if known.get(p.name) != p.stat().st_ino]
        return names + [name for below in sorted(path.iterdir()) for name in self.lost(below)]

    def require_durable(self, path: Path, base: Path) -> None:
        """Fail unless ``path`` and its name, and those of its parents up to ``base``, are on the disk."""
        assert self.too_early == []
        lost = self.lost(path)
        while path != base:
            known = self._folders.get(path.parent.stat().st_ino, {})
            lost += [] if known.get(path.name) == path.stat().st_ino else [str(path)]
            path = path.parent
        assert lost == []


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Files of this process take ``size`` bytes: every library meets a real failed write beyond."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
