"""Kinds of findings of a dataset check, and its report."""

from dataclasses import dataclass

from idif.datasets.realiad.statistics import Counts

ERRORS = {
    "annotations": "annotation files that cannot be read",
    "counts": "counts that are not the published ones",
    "missing": "files that are missing",
    "unreadable": "files that cannot be read",
    "wrong_size": "images or masks of a wrong size",
    "misplaced_view": "views in the wrong place",
    "mask_without_defect": "masks without a defect label",
    "defect_without_mask": "defect labels without a mask",
    "train_and_test": "files in train and test",
}
"""Kind of fault that makes a dataset unsound -> description."""

WARNINGS = {
    "near_duplicate": "near-duplicates",
    "brightness": "images of a brightness unusual for their camera",
    "few_samples": "splits of few samples",
    "one_class": "test splits of one class only",
    "contaminated": "training splits with anomalous samples",
    "grey_mask": "masks with grey values",
    "mask_marks_most": "masks that mark most of their picture",
    "sizes_vary": "cameras whose images differ in size",
}
"""Kind of oddity that a sound dataset may have -> description."""


@dataclass(frozen=True)
class Finding:
    """One fault or oddity."""

    kind: str
    """A key of `ERRORS` or `WARNINGS`."""
    category: str
    file: str
    """POSIX path relative to the dataset's root; empty where the finding concerns no single file."""
    message: str
    source: str | None = None
    """The file that an image was imported from, relative to the folder of the import; None where unknown."""

    def __post_init__(self) -> None:
        assert self.kind in ERRORS or self.kind in WARNINGS, self.kind


@dataclass(frozen=True)
class CheckReport:
    """Result of a dataset check."""

    root: str
    images: str
    annotations: str
    files: int
    """Images and masks opened."""
    counts: dict[str, Counts]
    """Category -> counts; categories whose annotations cannot be read are left out."""
    views: tuple[int, ...]
    """Camera numbers that occur."""
    whole: bool
    """Whether this is the complete Real-IAD, so that its published counts were compared."""
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return not self.errors
