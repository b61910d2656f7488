"""Counts of Real-IAD as published in its paper, for comparison with a dataset on disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CATEGORIES = frozenset(
    [
        "audiojack",
        "bottle_cap",
        "button_battery",
        "end_cap",
        "eraser",
        "fire_hood",
        "mint",
        "mounts",
        "pcb",
        "phone_battery",
        "plastic_nut",
        "plastic_plug",
        "porcelain_doll",
        "regulator",
        "rolled_strip_base",
        "sim_card_set",
        "switch",
        "tape",
        "terminalblock",
        "toothbrush",
        "toy",
        "toy_brick",
        "transistor1",
        "u_block",
        "usb",
        "usb_adaptor",
        "vcpill",
        "wooden_beads",
        "woodstick",
        "zipper",
    ]
)
"""Categories of Real-IAD: the names of its annotation files."""

ANNOTATIONS = "realiad_jsons"
"""The multi-view annotations, to which the published counts refer."""

COUNTS = {
    "train_samples": 7_293,
    "test_samples": 22_917,
    "train_images": 36_465,
    "test_images": 114_585,
    "hidden": 26_881,
}
"""Published totals over all categories, by field of `Counts`."""


@dataclass(frozen=True)
class Counts:
    """Number of samples, images and masks of one category."""

    train_samples: int = 0
    train_images: int = 0
    train_anomalous: int = 0
    """Anomalous training samples: more than 0 in contaminated sets."""
    test_samples: int = 0
    test_images: int = 0
    test_anomalous: int = 0
    """Anomalous test samples."""
    hidden: int = 0
    """Images under ``NG/`` labeled OK: views of a defective sample that do not show the defect."""
    masks: int = 0
    incomplete: int = 0
    """Samples that lack a view."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def is_complete_set(categories: Iterable[str], annotations: str) -> bool:
    """Whether these are all categories of Real-IAD, with the annotations whose counts are published."""
    return annotations == ANNOTATIONS and set(categories) == CATEGORIES


def count_differences(counts: Counts) -> Iterator[str]:
    """A sentence for each count that differs from the published one."""
    for name, expected in COUNTS.items():
        actual = getattr(counts, name)
        if actual != expected:
            words = {"hidden": "images under NG labelled OK"}.get(name, name.replace("_", " "))
            yield f"Real-IAD has {expected:,} {words}, these annotations {actual:,}"
