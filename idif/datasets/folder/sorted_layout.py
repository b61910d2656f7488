"""Finds the photographs of a folder sorted into good and bad parts, and splits the good ones::

    CATEGORY/ok/000.png                 or good, OK, normal, ...: one folder of `layout.NORMAL_NAMES`
    CATEGORY/scratch/000.png            any other folder is a defect
    CATEGORY/ng/dent/000.png            as is each folder of one of the BAD_NAMES
    CATEGORY/ground_truth/<defect>/000_mask.png     may be absent

Bad parts are for testing. Of the good ones a share is, those first in the order of a hash of their names, so
that few parts change their split when others are added.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from idif.datasets.folder.layout import (
    GROUND_TRUTH,
    NORMAL_NAMES,
    Pattern,
    PhotoSample,
    check_masks_have_defects,
    class_samples,
    visible,
)
from idif.errors import DatasetError
from idif.paths import shown

BAD_NAMES = {
    "ng",
    "nok",
    "bad",
    "defect",
    "defects",
    "defective",
    "faulty",
    "anomaly",
    "anomalous",
    "abnormal",
}
"""Names of folders, in lower case, that hold bad parts of any kind."""
SPLITS = {"train", "test", "val"}
"""Names, in lower case, of a split; folders of these are not sorted by good and bad alone."""
MASKS = {"mask", "masks", "gt", "groundtruth", "label", "labels", "annotations"}
"""Names, in lower case, that masks often lie under; no defect is called that."""
MOST_LISTED = 8
"""Folders that an error names."""


@dataclass(frozen=True)
class TestShare:
    """How many of the good parts are for testing."""

    __test__ = False

    share: float = 0.2
    """0 to below 1. Without bad parts all good ones are for training."""
    seed: int = 0

    def split(self, samples: Sequence[PhotoSample]) -> list[PhotoSample]:
        """Good samples with their splits, training first; at least one in each of two or more."""
        ordered = sorted((sample.name for sample in samples), key=self._place)
        count = min(max(round(self.share * len(ordered)), 1), len(ordered) - 1) if self.share else 0
        chosen = set(ordered[:count])
        kept = [replace(sample, split="train") for sample in samples if sample.name not in chosen]
        return kept + [replace(sample, split="test") for sample in samples if sample.name in chosen]

    def _place(self, name: str) -> float:
        """Uniform in 0..1 by seed and name."""
        digest = hashlib.sha256(f"{self.seed}\n{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def sorted_categories(src: Path) -> dict[str, Path]:
    """Category -> folder: those below ``src`` with a folder of good parts, or ``src`` itself with one."""
    if _normal_folders(src):
        return {src.resolve().name: src}
    folders = (path for path in visible(src) if path.is_dir() and path.name.casefold() not in SPLITS)
    return {path.name: path for path in folders if _normal_folders(path)}


def list_sorted_samples(folder: Path, pattern: Pattern | None, test: TestShare) -> list[PhotoSample]:
    """The samples of a category: training first, then test with the good ones first.

    Raises:
        DatasetError: no good photographs, two folders of good ones or of one defect, photographs beside the
            folders of defects or of a split, and as `layout.list_samples`.
    """
    normal = _normal_folders(folder)
    if len(normal) > 1:
        names = " and ".join(shown(path.name) for path in normal)
        raise DatasetError(f"{folder}: expected one folder of good parts, found {names}")
    for path in visible(folder):
        if path.is_dir() and path.name.casefold() in SPLITS:
            raise DatasetError(
                f"{shown(str(path))}: a split beside {shown(normal[0].name)}; expected folders of good and "
                "bad parts alone, or train/good, test/good and test/<defect>"
            )
    good = class_samples(folder, normal[0], "train", None, pattern)
    if not good:
        raise DatasetError(f"{shown(str(normal[0]))}: expected photographs, found none")
    defects = _defect_folders(folder, pattern)
    bad = [
        sample
        for defect, place in defects.items()
        for sample in class_samples(folder, place, "test", defect, pattern)
    ]
    check_masks_have_defects(folder, folder, defects)
    return (test.split(good) if bad else good) + bad


def _normal_folders(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_dir() and path.name.casefold() in NORMAL_NAMES]


def _defect_folders(folder: Path, pattern: Pattern | None) -> dict[str, Path]:
    """Name of the defect -> folder of its photographs, sorted by name."""
    found: dict[str, Path] = {}
    for path in visible(folder):
        if not path.is_dir() or path.name.casefold() in NORMAL_NAMES or path.name == GROUND_TRUTH:
            continue
        if path.name.casefold() in MASKS | {GROUND_TRUTH}:
            raise DatasetError(
                f"{shown(str(path))}: cannot be the name of a defect; expected masks in "
                f"{GROUND_TRUTH}/<defect>"
            )
        of_samples = pattern is not None and "/" in pattern.text
        inner = [] if of_samples else [child for child in visible(path) if child.is_dir()]
        of_any_kind = path.name.casefold() in BAD_NAMES and bool(inner)
        if of_any_kind and any(child.is_file() for child in visible(path)):
            raise DatasetError(
                f"{shown(str(path))}: expected photographs or one folder for each defect, found both"
            )
        for place in inner if of_any_kind else [path]:
            if place.name in found:
                raise DatasetError(
                    f"{shown(str(place))}: a second folder of the defect {shown(place.name)}; the first is "
                    f"{shown(str(found[place.name]))}"
                )
            found[place.name] = place
    return dict(sorted(found.items()))


def expected_layouts(src: Path) -> str:
    """A sentence about a folder in neither layout."""
    names = [shown(path.name) for path in visible(src) if path.is_dir()]
    listed = ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")
    return (
        f"{src}: expected folders of good and bad parts (ok and ng, or good and one for each defect), below "
        "a folder for each category or not, or <category>/train/good, <category>/test/good and "
        f"<category>/test/<defect>; found {listed or 'no folders'}"
    )
