"""Finds the photographs and masks of a folder in the layout of MVTec AD and of VisA's one-class split::

    CATEGORY/train/good/000.png                     any of the SUFFIXES, in upper or lower case
    CATEGORY/test/good/000.png
    CATEGORY/test/<defect>/000.png
    CATEGORY/ground_truth/<defect>/000_mask.png     or 000.png, as in VisA; may be absent

A pattern such as ``{sample}_{view}`` determines which photographs are views of one sample. No image is
opened.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idif.data.images import SUFFIXES
from idif.data.index import TRAIN_AND_TEST, Split
from idif.data.photo_files import find_photos, is_hidden, read_camera
from idif.datasets.realiad.writer import check_folder_name
from idif.errors import DatasetError
from idif.paths import is_plain, shown

GOOD, GROUND_TRUTH = "good", "ground_truth"
NORMAL_NAMES = {GOOD, "ok", "okay", "normal", "goods", "non_defective", "defect_free", "no_defect", "nominal"}
"""Names of folders, in lower case, that hardly are those of a defect."""


@dataclass(frozen=True)
class PhotoSample:
    """The photographs of one object. Paths are POSIX and relative to the category's folder."""

    split: Split
    defect: str | None
    """Class of the defect; None for a good sample."""
    name: str
    """Unique in its folder."""
    photographs: dict[str, str]
    """View's name -> photograph; without a pattern the only view is ``1``."""
    masks: dict[str, str]
    """View's name -> mask, for views that have one."""


@dataclass(frozen=True)
class Pattern:
    """Parses sample and view from a photograph's path below its ``good`` or defect folder."""

    regex: re.Pattern[str]
    text: str

    def read(self, path: str) -> tuple[str, str] | None:
        """(sample, view) of a path with its suffix; None where it does not fit."""
        match = self.regex.fullmatch(path)
        return None if match is None else (match["sample"], match["view"])


def read_pattern(text: str) -> Pattern:
    """Compile a pattern such as ``{sample}_{view}`` or ``{sample}/{view}.png``.

    ``{sample}`` matches as much as possible, folders included: ``a_1_top`` is view ``top`` of ``a_1``.
    A pattern without a suffix matches photographs with any suffix.

    Raises:
        DatasetError: ``{sample}`` or ``{view}`` does not occur exactly once, or there are other braces.
    """
    pieces = re.split(r"(\{[^{}]*\})", text)
    fields = [piece for piece in pieces if piece.startswith("{")]
    if sorted(fields) != ["{sample}", "{view}"]:
        raise DatasetError(f"--pattern: expected {{sample}} and {{view}}, each once, got {shown(text)}")
    groups = {"{sample}": "(?P<sample>.+)", "{view}": "(?P<view>[^/]+)"}
    body = "".join(groups.get(piece, re.escape(piece)) for piece in pieces)
    if not text.lower().endswith(SUFFIXES):
        body += f"(?:{'|'.join(map(re.escape, SUFFIXES))})"
    return Pattern(re.compile(body, re.IGNORECASE), text)


def split_categories(src: Path) -> dict[str, Path]:
    """Category -> folder: those below ``src`` that hold ``train/good``, or ``src`` itself where it does."""
    if (src / "train" / GOOD).is_dir():
        return {src.resolve().name: src}
    folders = (path.parent.parent for path in sorted(src.glob(f"*/train/{GOOD}")))
    return {folder.name: folder for folder in folders if not folder.name.startswith(".")}


def choose_categories(src: Path, known: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, Path]:
    """The folders of the wanted categories, or of all known ones.

    Raises:
        DatasetError: one of ``wanted`` is missing, or a name cannot be a category's.
    """
    for category in wanted:
        if category not in known:
            raise DatasetError(
                f"{src}: no category {shown(category)}; there is: {', '.join(map(shown, known))}"
            )
    chosen = {name: known[name] for name in dict.fromkeys(wanted)} or dict(known)
    for name in chosen:
        check_folder_name(name, "category", src)
    return chosen


def list_samples(folder: Path, pattern: Pattern | None) -> list[PhotoSample]:
    """The samples of a category: training first, then test with the good ones first.

    Raises:
        DatasetError: no training photographs, a training folder other than ``good``, a photograph that does
            not fit the pattern, two for one view, a mask of no photograph or defect, or a test folder that is
            named like normal samples but not ``good``.
    """
    samples: list[PhotoSample] = []
    for split in TRAIN_AND_TEST:
        class_folders = [path for path in visible(folder / split) if path.is_dir()]
        for class_folder in sorted(class_folders, key=lambda path: (path.name != GOOD, path.name)):
            if split == "train" and class_folder.name != GOOD:
                raise DatasetError(
                    f"{shown(str(class_folder))}: training folders other than {GOOD!r} are not read"
                )
            defect = None if class_folder.name == GOOD else class_folder.name
            if defect is not None:
                _refuse_normal(class_folder)
            samples += class_samples(folder, class_folder, split, defect, pattern)
    defects = {path.name for path in visible(folder / "test") if path.is_dir()}
    check_masks_have_defects(folder, folder / "test", defects)
    if not any(sample.split == "train" for sample in samples):
        raise DatasetError(
            f"{folder / 'train' / GOOD}: expected photographs ({', '.join(SUFFIXES)}), found none"
        )
    return samples


def class_samples(
    folder: Path, class_folder: Path, split: Split, defect: str | None, pattern: Pattern | None
) -> list[PhotoSample]:
    """The samples of one class, with their masks if it is a defect.

    Args:
        folder: the category's; its ``ground_truth`` may hold masks of the defect.
        class_folder: holds the photographs.
        split: of all of them.
        defect: None for good samples.
        pattern: None where every photograph is a sample.

    Raises:
        DatasetError: as `list_samples`.
    """
    if defect is not None:
        _check_defect(class_folder, folder / GROUND_TRUTH)
    grouped = _group(folder, class_folder, pattern)
    masks = {} if defect is None else _masks(folder, defect)
    samples = []
    for name, views in grouped.items():
        keys = _mask_keys(folder, class_folder, views, masks)
        own_masks = {view: masks.pop(key) for view, key in keys}
        samples.append(PhotoSample(split, defect, name, views, own_masks))
    if masks:
        raise DatasetError(_mask_without_photograph(folder, class_folder, next(iter(masks.values()))))
    return samples


def check_masks_have_defects(folder: Path, place: Path, defects: Collection[str]) -> None:
    """Refuse masks of a defect without photographs.

    Args:
        folder: the category's.
        place: holds the folders of defects.
        defects: their names.
    """
    for masked in visible(folder / GROUND_TRUTH):
        if masked.name not in defects and _photographs(masked):
            raise DatasetError(f"{shown(str(masked))}: masks of a defect that {place} does not have")


def _refuse_normal(class_folder: Path) -> None:
    """Refuse a folder of the test split that is hardly that of a defect."""
    if class_folder.name.casefold() in NORMAL_NAMES:
        raise DatasetError(
            f"{shown(str(class_folder))}: cannot be the name of a defect; name the folder of normal samples "
            f"{GOOD!r}, in lower case"
        )


def _check_defect(class_folder: Path, ground_truth: Path) -> None:
    """Refuse a name that no defect can have, and one whose masks another spelling hides."""
    name = class_folder.name
    check_folder_name(name, "defect", class_folder.parent)
    spelled = {path.name for path in visible(ground_truth)}
    other = next((n for n in sorted(spelled) if n != name and n.casefold() == name.casefold()), None)
    if name not in spelled and other is not None:
        raise DatasetError(
            f"{shown(str(ground_truth / other))}: expected the same spelling as {shown(str(class_folder))}"
        )


def _mask_without_photograph(folder: Path, class_folder: Path, mask: str) -> str:
    message = f"{folder / mask}: a mask of no photograph in {class_folder}"
    photograph = class_folder / Path(mask).parent.name
    if any(photograph.with_name(photograph.name + suffix).is_file() for suffix in SUFFIXES):
        message += (
            f"; it has a folder of masks, as in MVTec LOCO AD: merge them into one mask "
            f"{folder / Path(mask).parent}.png that marks every pixel of any of them"
        )
    return message


def visible(folder: Path) -> list[Path]:
    """Files and folders directly below ``folder`` except hidden ones, sorted."""
    return sorted(path for path in folder.glob("*") if not is_hidden(path.name))


def _photographs(folder: Path) -> list[str]:
    """Every photograph below ``folder`` except hidden ones, relative to it."""
    photographs = []
    for path in find_photos(folder).files if folder.is_dir() else ():
        relative = path.relative_to(folder).as_posix()
        if not is_plain(relative):
            raise DatasetError(f"{shown(str(path))}: expected a name without control characters")
        photographs.append(relative)
    return sorted(photographs)


def _group(folder: Path, class_folder: Path, pattern: Pattern | None) -> dict[str, dict[str, str]]:
    """Sample -> view's name -> photograph relative to the category's folder."""
    samples: dict[str, dict[str, str]] = {}
    for file in _photographs(class_folder):
        name_and_view = (_stem(file), "1") if pattern is None else pattern.read(file)
        if name_and_view is None:
            text = "" if pattern is None else pattern.text
            raise DatasetError(f"{class_folder / file}: expected a name that fits --pattern {shown(text)}")
        name, view = name_and_view
        path = (class_folder / file).relative_to(folder).as_posix()
        first = samples.setdefault(name, {}).setdefault(view, path)
        if first != path:
            raise DatasetError(
                f"{class_folder / file}: a second photograph of view {view!r}; the first is {first}"
            )
    if pattern is None:
        _refuse_cameras(class_folder, samples)
    return samples


def _refuse_cameras(class_folder: Path, names: Iterable[str]) -> None:
    """Refuse photographs whose names tell cameras where every photograph would be a sample of its own."""
    first: dict[str, tuple[int, str]] = {}
    for name in names:
        camera = read_camera(name)
        if camera is None or not camera.part:
            continue
        number, other = first.setdefault(camera.part, (camera.number, name))
        if number != camera.number:
            raise DatasetError(
                f"{class_folder}: {shown(other)} and {shown(name)} are named as views of cameras {number} "
                f"and {camera.number} of one sample; say so with --pattern, e.g. '{{sample}}_{{view}}'"
            )


def _stem(file: str) -> str:
    return file[: file.rindex(".")]


def _masks(folder: Path, defect: str) -> dict[str, str]:
    """Path below ``ground_truth/<defect>`` without suffix -> mask, relative to the category's folder."""
    root = folder / GROUND_TRUTH / defect
    return {_stem(file): (root / file).relative_to(folder).as_posix() for file in _photographs(root)}


def _mask_keys(
    folder: Path, class_folder: Path, views: dict[str, str], masks: dict[str, str]
) -> list[tuple[str, str]]:
    """(view, key of ``masks``) of the views that have a mask."""
    keys = []
    for view, path in views.items():
        stem = _stem((folder / path).relative_to(class_folder).as_posix())
        keys += [(view, key) for key in (f"{stem}_mask", stem) if key in masks][:1]
    return keys
