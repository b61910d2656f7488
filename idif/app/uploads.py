"""What visitors send: copied into a folder of its own, limited, and spoken of without any path."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from idif.data.images import SUFFIXES
from idif.datasets.realiad.reader import read_file_name
from idif.errors import IdifError
from idif.inference.photo_grouping import PredictInput, find_parts
from idif.paths import relative_posix

PHOTO_MB = 25
"""Of one photograph."""
UPLOAD_MB = 250
"""Of one file, a zip archive among them."""
UNPACKED_MB = 2000
FILES = 2000
"""Photographs of one upload, or of one archive."""
_MB = 1_000_000


class UploadError(Exception):
    """Something a visitor cannot have; the message is for the page and names no path of the machine."""


@dataclass(frozen=True)
class Upload:
    """The files of one upload, in a folder that nothing else uses."""

    folder: Path

    @classmethod
    def make(cls) -> "Upload":
        """An empty folder below the machine's folder for temporary files."""
        # a part without a telling name is called as the folder it lies in
        folder = Path(tempfile.mkdtemp(prefix="idif-")).resolve() / "part"
        folder.mkdir()
        return cls(folder)

    def remove(self) -> None:
        """Delete the folder with what is in it."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def take(self, files: Sequence[str]) -> None:
        """Copy photographs, and unpack zip archives of them.

        Raises:
            Refused: a file is too large, of another kind, or there are too many.
        """
        if len(files) > FILES:
            raise UploadError(f"These are more than {FILES} photographs.")
        for file in map(Path, files):
            if file.suffix.lower() == ".zip":
                self._unpack(file)
            else:
                self._admit(PurePosixPath(file.name), file.stat().st_size)
                shutil.copyfile(file, self.folder / file.name)
        if not any(self.folder.iterdir()):
            raise UploadError(f"There is no photograph in this upload; expected {', '.join(SUFFIXES)}.")

    def _admit(self, name: PurePosixPath, size: int) -> None:
        if name.suffix.lower() not in SUFFIXES:
            raise UploadError(f"{name.name}: expected a photograph ({', '.join(SUFFIXES)}).")
        if size > PHOTO_MB * _MB:
            raise UploadError(f"{name.name}: {size / _MB:.0f} MB; a photograph may have {PHOTO_MB} MB.")
        if (self.folder / name).exists():
            raise UploadError(f"{name.name}: there are two files of this name.")

    def _unpack(self, file: Path) -> None:
        try:
            with self.as_upload_error(), zipfile.ZipFile(file) as archive:
                members = [m for m in archive.infolist() if Path(m.filename).suffix.lower() in SUFFIXES]
                if len(members) > FILES or sum(m.file_size for m in members) > UNPACKED_MB * _MB:
                    raise UploadError(
                        f"{file.name}: holds more than {FILES} photographs or {UNPACKED_MB} MB of them."
                    )
                for member in members:
                    # what a zip calls itself is a stranger's word: no drive, no "..", no absolute path
                    name = PurePosixPath(relative_posix(member.filename, file.name))
                    self._admit(name, member.file_size)
                    into = self.folder / name
                    into.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as packed, into.open("wb") as plain:
                        shutil.copyfileobj(packed, plain)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
            raise UploadError(f"{file.name}: this zip archive cannot be read.") from None

    def parts(
        self, view_numbers: Sequence[int], categories: Sequence[str], category: str
    ) -> list[PredictInput]:
        """The parts among the photographs; ``category`` is that of names that do not say it.

        Raises:
            Refused: they cannot be told apart, see `find_parts`.
        """
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        told = all(read_file_name(path.name, categories) is not None for path in files)
        with self.as_upload_error():
            return find_parts([self.folder], view_numbers, categories, None if told else category)

    @contextmanager
    def as_upload_error(self) -> Iterator[None]:
        """Turn this project's errors into `UploadError`, without the folder."""
        try:
            yield
        except IdifError as error:
            raise UploadError(self.hide_paths(str(error))) from None

    def hide_paths(self, text: str) -> str:
        """``text`` with files named as the visitor named them."""
        place = str(self.folder)
        for form in (place, place.replace("\\", "\\\\")):
            for separator in ("/", "\\\\", "\\"):
                text = text.replace(form + separator, "")
            text = text.replace(form, "the upload")
        return text.replace("--category", "the chosen category")
