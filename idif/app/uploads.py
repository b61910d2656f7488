"""Uploads: a private temporary folder, size limits, and no path of the server in any message."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from idif.data.images import SUFFIXES
from idif.data.photo_files import OTHER_PICTURES, is_hidden, natural_key
from idif.datasets.realiad.reader import read_file_name
from idif.errors import IdifError
from idif.inference.photo_grouping import (
    PredictInput,
    UnclearCameras,
    find_parts,
    is_automatic,
    photographs,
    told_cameras,
)
from idif.paths import portable_name, relative_posix

PHOTO_MB = 25
"""Largest photograph."""
UPLOAD_MB = 250
"""Largest file of an upload, zip archives included."""
UNPACKED_MB = 2000
"""Largest content of a zip archive."""
MAX_FILES = 2000
"""Most photographs of an upload or an archive."""
MOST_PER_CAMERA = 2
"""Most photographs of one part for each camera that a visitor may assign by hand."""
_MB = 1_000_000


class UploadError(Exception):
    """An upload that is refused; the message is shown on the page and contains no path of the server."""


class UnclearUpload(UploadError):
    """Photographs whose names do not say which camera each is of."""


@dataclass(frozen=True)
class OnePart:
    """An upload of one part."""

    part: PredictInput
    files: tuple[Path, ...]
    """All photographs, in the natural order of their names; also those that no camera has."""
    unclear: str | None
    """A sentence if cameras are unclear."""
    told: bool
    """Whether names tell the cameras, which otherwise are in the order of the names."""


@dataclass(frozen=True)
class Upload:
    """The files of one upload, in a folder of its own."""

    folder: Path

    @classmethod
    def make(cls, below: Path | None = None) -> "Upload":
        """An upload with an empty folder ``below`` that of all uploads, or in the system's temporary one.

        Raises:
            UploadError: the folder cannot be made.
        """
        # a part whose files do not name it gets the name of its folder
        try:
            folder = Path(tempfile.mkdtemp(prefix="idif-", dir=below)).resolve() / "part"
            folder.mkdir()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UploadError(f"The server cannot keep an upload ({reason}).") from None
        return cls(folder)

    def remove(self) -> None:
        """Delete the folder and its files."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def add(self, files: Sequence[str]) -> None:
        """Copy photographs and unpack zip archives of photographs.

        Raises:
            UploadError: a file is too large or of another kind, or there are too many files.
        """
        if len(files) > MAX_FILES:
            raise UploadError(f"An upload may have at most {MAX_FILES} photographs.")
        for file in map(Path, files):
            if file.suffix.lower() == ".zip":
                self._unpack(file)
                continue
            try:
                self._check(PurePosixPath(file.name), file.stat().st_size)
                shutil.copyfile(file, self.folder / file.name)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise UploadError(f"{file.name}: could not be kept ({reason}); upload it again.") from None
        if not any(self.folder.iterdir()):
            raise UploadError(f"The upload contains no photograph; expected {', '.join(SUFFIXES)}.")

    def _check(self, name: PurePosixPath, size: int) -> None:
        if name.suffix.lower() not in SUFFIXES:
            raise UploadError(f"{name.name}: expected a photograph ({', '.join(SUFFIXES)}).")
        if size > PHOTO_MB * _MB:
            raise UploadError(
                f"{name.name}: {size / _MB:.0f} MB; a photograph may have at most {PHOTO_MB} MB."
            )
        if (self.folder / name).exists():
            raise UploadError(f"{name.name}: there are two files with this name.")

    def _unpack(self, file: Path) -> None:
        try:
            with self.as_upload_error(), zipfile.ZipFile(file) as archive:
                members = [m for m in archive.infolist() if _is_picture(m.filename)]
                if len(members) > MAX_FILES or sum(m.file_size for m in members) > UNPACKED_MB * _MB:
                    raise UploadError(
                        f"{file.name}: contains more than {MAX_FILES} photographs or {UNPACKED_MB} MB."
                    )
                names = {member.filename for member in members}
                for member in members:
                    holder = next(
                        (str(p) for p in PurePosixPath(member.filename).parents if str(p) in names), None
                    )
                    if holder is not None:
                        raise UploadError(f"{file.name}: {holder} is both a photograph and a folder.")
                    # names in an archive are untrusted: no drive, no "..", no absolute path
                    name = PurePosixPath(relative_posix(member.filename, file.name))
                    self._check(name, member.file_size)
                    target = self.folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as packed, target.open("wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
            raise UploadError(f"{file.name}: this zip archive cannot be read.") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UploadError(f"{file.name}: this zip archive cannot be unpacked ({reason}).") from None

    def parts(
        self,
        view_numbers: Sequence[int],
        categories: Sequence[str],
        category: str,
        cameras: Mapping[int, str] | None = None,
    ) -> list[PredictInput]:
        """The photographs grouped into parts; ``category`` is used if a file name does not contain it.

        Args:
            view_numbers: the run's cameras.
            categories: the run's categories.
            category: that of the page.
            cameras: camera number -> its name, which file names may tell.

        Raises:
            UploadError: the photographs cannot be grouped, see `find_parts`.
        """
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        all_named = all(read_file_name(path.name, categories) is not None for path in files)
        with self.as_upload_error():
            chosen = None if all_named else category
            return find_parts([self.folder], view_numbers, categories, chosen, cameras)

    def one_part(
        self,
        view_numbers: Sequence[int],
        categories: Sequence[str],
        category: str,
        cameras: Mapping[int, str],
    ) -> "OnePart":
        """The photographs as one part; those whose camera is unclear are left without one.

        Args:
            view_numbers: the run's cameras.
            categories: the run's categories.
            category: that of the page.
            cameras: camera number -> its name, which file names may tell.

        Raises:
            UploadError: they are several parts, or cannot be grouped for another reason than their cameras.
        """
        with self.as_upload_error():
            files = sorted((p for p, _ in photographs([self.folder])), key=lambda p: natural_key(p.name))
        told = told_cameras(files, view_numbers, categories, cameras)
        try:
            parts = self.parts(view_numbers, categories, category, cameras)
        except UnclearUpload as unclear:
            named = [read_file_name(path.name, categories) for path in files]
            of = {(name[0], name[1]) for name in named if name is not None}
            several = len(of) > 1 or len(files) > MOST_PER_CAMERA * len(view_numbers)
            category = next(iter(of))[0] if of else category
            # a category that is told by the photographs needs at least one of them
            if len(view_numbers) == 1 or several or (not told and is_automatic(category, categories)):
                raise
            by_camera = {number: path for path, number in told.items()}
            slots = tuple(by_camera.get(number) for number in view_numbers)
            part = PredictInput(portable_name(files[0].stem), category, slots)
            return OnePart(part, tuple(files), str(unclear), told=False)
        if len(parts) > 1:
            raise UploadError(f"These are photographs of {len(parts)} parts; use the tab “Many parts”.")
        return OnePart(parts[0], tuple(files), None, told=len(told) == len(files))

    @contextmanager
    def as_upload_error(self) -> Iterator[None]:
        """Turn this project's errors into `UploadError`, without the folder in their messages."""
        try:
            yield
        except UnclearCameras as error:
            raise UnclearUpload(self.hide_paths(str(error))) from None
        except IdifError as error:
            raise UploadError(self.hide_paths(str(error))) from None

    def hide_paths(self, text: str) -> str:
        """``text`` with paths relative to the upload."""
        folder = str(self.folder)
        for form in (folder, folder.replace("\\", "\\\\")):
            for separator in ("/", "\\\\", "\\"):
                text = text.replace(form + separator, "")
            text = text.replace(form, "the upload")
        return text.replace("--category", "the chosen category")


def _is_picture(name: str) -> bool:
    """Whether a member of an archive is a picture; one of a kind that is not read is refused by its name."""
    path = PurePosixPath(name)
    ours = path.suffix.lower() in (*SUFFIXES, *OTHER_PICTURES)
    return ours and not any(is_hidden(part) for part in path.parts if part not in ("..", "."))


def discard(files: Sequence[str], below: Path | None) -> None:
    """Delete the server's own copies of uploaded files, which lie ``below`` the folder of all uploads."""
    for file in map(Path, files):
        if below is not None and file.resolve().is_relative_to(below.resolve()):
            file.unlink(missing_ok=True)
            with suppress(OSError):
                file.parent.rmdir()
