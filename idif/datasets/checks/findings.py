"""What a check of a dataset can find, and what it found."""

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
"""Kinds of fault that make a dataset unsound, each with its words."""

WARNINGS = {
    "near_duplicate": "near-duplicates",
    "brightness": "images of extreme brightness",
    "few_samples": "splits of few samples",
    "one_class": "test splits of one class only",
    "contaminated": "training splits with anomalous samples",
    "sizes_vary": "cameras whose images differ in size",
}
"""Kinds of oddity that a dataset may have."""


@dataclass(frozen=True)
class Finding:
    """One fault or oddity."""

    kind: str
    """A key of `ERRORS` or `WARNINGS`."""
    category: str
    file: str
    """POSIX path relative to the dataset's root; empty where no single file is concerned."""
    message: str

    def __post_init__(self) -> None:
        assert self.kind in ERRORS or self.kind in WARNINGS, self.kind


@dataclass(frozen=True)
class CheckReport:
    """What a check read and found."""

    root: str
    images: str
    annotations: str
    files: int
    """Images and masks opened."""
    counts: dict[str, Counts]
    """By category; those whose annotations cannot be read are left out."""
    views: tuple[int, ...]
    """Camera numbers that occur."""
    whole: bool
    """Whether this is the whole of Real-IAD, whose counts are known and were compared."""
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return not self.errors
