"""Find the photographs and masks of a folder in MVTec AD's layout, which VisA's one-class split shares::

    CATEGORY/train/good/000.png                     any of the SUFFIXES, in either case of letters
    CATEGORY/test/good/000.png
    CATEGORY/test/<defect>/000.png
    CATEGORY/ground_truth/<defect>/000_mask.png     or 000.png, as VisA has it; may be absent altogether

A pattern such as ``{sample}_{view}`` says which photographs are views of one sample. No image is opened.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from idif.data.images import SUFFIXES
from idif.data.index import NORMAL_CLASS, Split
from idif.errors import DatasetError
from idif.paths import is_plain, shown

GOOD = "good"


@dataclass(frozen=True)
class PhotoSample:
    """One object. Paths are relative to the category's folder, POSIX."""

    split: Split
    defect: str | None
    """None for a good one."""
    name: str
    """Unique in its folder."""
    photographs: dict[str, str]
    """View's name -> photograph; the one view of a set without a pattern is ``1``."""
    masks: dict[str, str]
    """View's name -> mask, where there is one."""


@dataclass(frozen=True)
class Pattern:
    """How a photograph's path below its ``good`` or defect folder tells sample and view."""

    regex: re.Pattern[str]
    text: str

    def read(self, path: str) -> tuple[str, str] | None:
        """(sample, view) of a path, its suffix included; None where it does not fit."""
        told = self.regex.fullmatch(path)
        return None if told is None else (told["sample"], told["view"])


def read_pattern(text: str) -> Pattern:
    """Understand ``{sample}_{view}``, ``{sample}/{view}.png`` and the like.

    ``{sample}`` takes as much as it can, folders included, so that ``a_1_top`` is view ``top`` of ``a_1``.
    Without a suffix at its end the pattern takes photographs of every kind.

    Raises:
        DatasetError: ``{sample}`` or ``{view}`` does not occur exactly once, or other braces do.
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


def find_categories(src: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Category -> folder: those below ``src`` that hold ``train/good``, or ``src`` itself where it does.

    Raises:
        DatasetError: there is none, one of ``wanted`` is missing, or a name cannot be a category's.
    """
    if not src.is_dir():
        raise DatasetError(f"{src}: expected a folder with one folder per category, but there is none")
    if (src / "train" / GOOD).is_dir():
        known = {src.resolve().name: src}
    else:
        known = {path.parent.parent.name: path.parent.parent for path in sorted(src.glob(f"*/train/{GOOD}"))}
    known = {name: path for name, path in known.items() if not name.startswith(".")}
    if not known:
        raise DatasetError(f"{src}: expected folders <category>/train/{GOOD} with photographs, found none")
    for category in wanted:
        if category not in known:
            raise DatasetError(
                f"{src}: no category {shown(category)}; there is: {', '.join(map(shown, known))}"
            )
    chosen = {name: known[name] for name in dict.fromkeys(wanted)} or known
    for name in chosen:
        _check_name(src / name, "category")
    return chosen


def list_samples(folder: Path, pattern: Pattern | None) -> list[PhotoSample]:
    """The samples of a category: training first, then test with the good ones first.

    Raises:
        DatasetError: no training photographs, a training folder other than ``good``, a photograph that does
            not fit the pattern, two for one view, or a mask of no photograph.
    """
    samples: list[PhotoSample] = []
    for split in get_args(Split):
        places = [path for path in _visible(folder / split) if path.is_dir()]
        for place in sorted(places, key=lambda path: (path.name != GOOD, path.name)):
            if split == "train" and place.name != GOOD:
                raise DatasetError(f"{shown(str(place))}: training folders other than {GOOD!r} are not read")
            defect = None if place.name == GOOD else place.name
            if defect is not None:
                _check_name(place, "defect")
            found = _group(folder, place, pattern)
            masks = {} if defect is None else _masks(folder, defect)
            for name, views in found.items():
                own = {view: masks.pop(stem) for view, stem in _stems(folder, place, views, masks)}
                samples.append(PhotoSample(split, defect, name, views, own))
            if masks:
                file = next(iter(masks.values()))
                raise DatasetError(f"{folder / file}: a mask of no photograph in {place}")
    if not any(sample.split == "train" for sample in samples):
        raise DatasetError(
            f"{folder / 'train' / GOOD}: expected photographs ({', '.join(SUFFIXES)}), found none"
        )
    return samples


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _check_name(path: Path, what: str) -> None:
    if not is_plain(path.name) or re.search(r'[\\/:*?"<>|]', path.name) or path.name == NORMAL_CLASS:
        raise DatasetError(f"{shown(str(path))}: cannot be the name of a {what}")


def _photographs(folder: Path) -> list[str]:
    """Every photograph below ``folder``, hidden ones aside, relative to it."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix.lower() in SUFFIXES and not hidden:
            if not is_plain(relative.as_posix()):
                raise DatasetError(f"{shown(str(path))}: expected a name without control characters")
            found.append(relative.as_posix())
    return sorted(found)


def _group(folder: Path, place: Path, pattern: Pattern | None) -> dict[str, dict[str, str]]:
    """Sample -> view's name -> photograph relative to the category's folder."""
    samples: dict[str, dict[str, str]] = {}
    for file in _photographs(place):
        told = (_stem(file), "1") if pattern is None else pattern.read(file)
        if told is None:
            text = "" if pattern is None else pattern.text
            raise DatasetError(f"{place / file}: expected a name that fits --pattern {shown(text)}")
        name, view = told
        path = (place / file).relative_to(folder).as_posix()
        first = samples.setdefault(name, {}).setdefault(view, path)
        if first != path:
            raise DatasetError(f"{place / file}: a second photograph of view {view!r}; the first is {first}")
    return samples


def _stem(file: str) -> str:
    return file[: file.rindex(".")]


def _masks(folder: Path, defect: str) -> dict[str, str]:
    """Path below ``ground_truth/<defect>`` without suffix -> mask, relative to the category's folder."""
    place = folder / "ground_truth" / defect
    return {_stem(file): (place / file).relative_to(folder).as_posix() for file in _photographs(place)}


def _stems(folder: Path, place: Path, views: dict[str, str], masks: dict[str, str]) -> list[tuple[str, str]]:
    """(view, key of ``masks``) of the views that have a mask."""
    found = []
    for view, path in views.items():
        stem = _stem((folder / path).relative_to(place).as_posix())
        found += [(view, key) for key in (f"{stem}_mask", stem) if key in masks][:1]
    return found
