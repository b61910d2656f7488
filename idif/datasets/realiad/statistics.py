"""What Real-IAD holds according to its paper, to be compared with what is on the disk."""

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
"""The names of its annotation files."""

ANNOTATIONS = "realiad_jsons"
"""The multi-view set, whose counts these are."""

COUNTS = {
    "train_samples": 7_293,
    "test_samples": 22_917,
    "train_images": 36_465,
    "test_images": 114_585,
    "hidden": 26_881,
}
"""Fields of `Counts` that are published, over all categories."""


@dataclass(frozen=True)
class Counts:
    """What one category holds."""

    train_samples: int = 0
    train_images: int = 0
    train_anomalous: int = 0
    """Samples, of the training split: contaminated sets have some."""
    test_samples: int = 0
    test_images: int = 0
    test_anomalous: int = 0
    """Samples, of the test split."""
    hidden: int = 0
    """Images under ``NG/`` that are labelled OK: views of a defective sample that do not show the defect."""
    masks: int = 0
    incomplete: int = 0
    """Samples that lack a view."""

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


def is_whole(categories: Iterable[str], annotations: str) -> bool:
    """Whether these are all of Real-IAD's categories, in the set whose counts are known."""
    return annotations == ANNOTATIONS and set(categories) == CATEGORIES


def differences(found: Counts) -> Iterator[str]:
    """What is not as published, in words."""
    for name, expected in COUNTS.items():
        came = getattr(found, name)
        if came != expected:
            words = {"hidden": "images under NG labelled OK"}.get(name, name.replace("_", " "))
            yield f"Real-IAD has {expected:,} {words}, these annotations {came:,}"
