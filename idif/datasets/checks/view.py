"""Checks of the files of one view."""

import hashlib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idif.data.images import decode, decode_mask, read_file, to_rgb
from idif.data.index import NORMAL_CLASS, Sample, View
from idif.datasets.checks.findings import Finding
from idif.datasets.checks.thumbnails import Thumbnails, make_thumbnail
from idif.datasets.realiad.reader import read_file_name
from idif.errors import DatasetError
from idif.paths import resolve_inside

MOST = 0.5
"""A mask that marks a larger share of its picture may be inverted."""


@dataclass(frozen=True)
class ViewCheck:
    """Result of checking the files of one view."""

    sample: Sample
    view: View
    findings: tuple[Finding, ...]
    digest: bytes | None
    """SHA-256 of the image file; None where it cannot be read."""
    shape: tuple[int, int] | None
    """(height, width) of the image; None where it cannot be decoded."""
    thumbnail: Thumbnails | None
    """None where the image cannot be decoded."""


def check_view(
    root: Path, sample: Sample, view: View, *, has_masks: bool, categories: Sequence[str]
) -> ViewCheck:
    """Open a view's image and mask and report every fault.

    Args:
        has_masks: whether the view's category has masks, so that a defect needs one.
        categories: all categories of the dataset, to recognize file names.
    """
    findings: list[Finding] = []

    def report(kind: str, file: str, message: str) -> None:
        findings.append(Finding(kind, sample.category, file, message))

    misplaced = _misplaced(sample, view, categories)
    if misplaced is not None:
        report("misplaced_view", view.image, misplaced)
    if view.mask is not None and not view.label:
        report("mask_without_defect", view.mask, f"is the mask of {view.image}, which is labelled OK")
    if view.mask is None and view.label and has_masks:
        report("defect_without_mask", view.image, f"is labelled {view.anomaly_class} and has no mask")

    digest, shape, thumbnail = None, None, None
    try:
        path = resolve_inside(root, view.image)
        content = read_file(path, "image")
        digest = hashlib.sha256(content).digest()
        image = to_rgb(decode(content, path, "image"), path)
        shape, thumbnail = (image.height, image.width), make_thumbnail(image)
    except DatasetError as error:
        report(_failure_kind(root, view.image), view.image, str(error))
    if view.mask is not None:
        try:
            whole = decode_mask(resolve_inside(root, view.mask))
            mask = whole.marked
            if shape not in (None, mask.shape):
                sizes = f"{mask.shape[1]}x{mask.shape[0]}, its image is {shape[1]}x{shape[0]}"
                report("wrong_size", view.mask, f"is {sizes}")
            elif whole.has_grey:
                values = f"{len(whole.levels)} grey values up to {whole.levels[-1]}"
                report("grey_mask", view.mask, f"has {values}; saved as JPEG or smoothed?")
            if view.label and not mask.any():
                report("defect_without_mask", view.mask, "marks nothing, but its image is labelled defective")
            if mask.mean() > MOST:
                share = f"{mask.mean():.0%} of its picture"
                report("mask_marks_most", view.mask, f"marks {share}; is it inverted?")
        except DatasetError as error:
            report(_failure_kind(root, view.mask), view.mask, str(error))
    return ViewCheck(sample, view, tuple(findings), digest, shape, thumbnail)


def _failure_kind(root: Path, file: str) -> str:
    return "unreadable" if (root / file).exists() or (root / file).is_symlink() else "missing"


def _misplaced(sample: Sample, view: View, categories: Sequence[str]) -> str | None:
    """Message where the name of an image contradicts its folder, else None."""
    folder, name = posixpath.split(view.image)
    own = sample.category
    parsed = read_file_name(name, categories)
    if parsed is not None and parsed[0] != own:
        return f"is named as a picture of {parsed[0]}, but belongs to {own}"
    numbers = re.match(r"([0-9]+)_", name.removeprefix(f"{own}_"))
    sample_folder = re.fullmatch(r"S([0-9]+)", posixpath.basename(folder))
    if numbers and sample_folder and int(numbers[1]) != int(sample_folder[1]):
        return (
            f"is named as a picture of sample {numbers[1]}, "
            f"but lies in the folder of sample {sample_folder[1]}"
        )
    named = re.match(rf"[0-9]+_({NORMAL_CLASS}|NG)_", name.removeprefix(f"{own}_"))
    kind = next((part for part in folder.split("/") if part in (NORMAL_CLASS, "NG")), None)
    if named and kind and named[1] != kind:
        return f"is named as {named[1]}, but lies under {kind}"
    return None
