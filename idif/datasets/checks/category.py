"""Checks that compare the views of a category with each other."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from idif.data.index import TRAIN_AND_TEST, Index, View
from idif.datasets.checks.findings import Finding
from idif.datasets.checks.thumbnails import exchanged_views, near_duplicates
from idif.datasets.checks.view import ViewCheck
from idif.datasets.contamination import contamination
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.statistics import Counts

DARK, BRIGHT = 8.0, 247.0
"""Mean gray values, 0..255, below and above which a picture shows nothing."""
MAX_BRIGHTNESS_DEVIATION = 64.0
"""Largest difference of a picture's mean gray value from its camera's median that is usual."""
MIN_SAMPLES = 10
"""Fewer samples than this in a split give a warning."""


@dataclass
class SameImage:
    """The files with the same bytes in the categories checked so far."""

    train: str | None = None
    """The first one for training."""
    test: list[tuple[str, str]] = field(default_factory=list)
    """(category, file) of those for testing, while there is none for training."""


SameImages = dict[bytes, SameImage]
"""Digest of an image file -> the files with these bytes."""


def compare_views(category: str, views: Sequence[ViewCheck], same: SameImages) -> Iterator[Finding]:
    """Faults and oddities among the views of one category.

    Args:
        same: image files of earlier categories; the files of this one are added.
    """
    yield from _in_both_splits(category, views, same)
    decoded = [check for check in views if check.thumbnail is not None]
    if decoded:
        yield from _similar_pictures(category, decoded)
        yield from _brightness(category, decoded)


def _in_both_splits(category: str, views: Sequence[ViewCheck], same: SameImages) -> Iterator[Finding]:
    """Every file for testing with the bytes of one for training."""
    for check in views:
        if check.digest is None:
            continue
        files = same.setdefault(check.digest, SameImage())
        if check.sample.split == "test":
            files.test.append((category, check.view.image))
        elif files.train is None:
            files.train = check.view.image
        if files.train is not None:
            for of, file in files.test:
                yield Finding("train_and_test", of, file, f"has the same bytes as {files.train}")
            files.test.clear()


def _similar_pictures(category: str, views: Sequence[ViewCheck]) -> Iterator[Finding]:
    thumbnails = np.stack([check.thumbnail for check in views if check.thumbnail is not None])
    ids: dict[str, int] = {}
    owners = np.array([ids.setdefault(check.sample.sample_id, len(ids)) for check in views])
    cameras = np.array([check.view.number for check in views])
    for i, j in exchanged_views(thumbnails, owners, cameras):
        first, second = views[i].view, views[j].view
        pair = f"cameras {first.number} and {second.number}"
        message = f"looks as if it were exchanged with {second.image} ({pair})"
        yield Finding("misplaced_view", category, first.image, message)
    for i, j in near_duplicates(thumbnails, owners, cameras):
        one, two = views[i], views[j]
        if one.digest == two.digest and one.sample.split != two.sample.split:
            continue  # reported as an error by `_in_both_splits`
        how = "has the same bytes as" if one.digest == two.digest else "looks nearly like"
        yield Finding("near_duplicate", category, two.view.image, f"{how} {one.view.image}")


def _brightness(category: str, views: Sequence[ViewCheck]) -> Iterator[Finding]:
    means = np.array([check.thumbnail.mean() for check in views if check.thumbnail is not None])
    cameras = np.array([check.view.number for check in views])
    for camera in np.unique(cameras):
        median = float(np.median(means[cameras == camera]))
        for number in np.flatnonzero(cameras == camera).tolist():
            mean = float(means[number])
            if not DARK <= mean <= BRIGHT:
                message = f"mean grey value {mean:.0f} of 255, nearly {'black' if mean < DARK else 'white'}"
            elif abs(mean - median) > MAX_BRIGHTNESS_DEVIATION:
                message = (
                    f"mean grey value {mean:.0f} of 255, unusual for camera {camera} (median {median:.0f})"
                )
            else:
                continue
            yield Finding("brightness", category, views[number].view.image, message)


def check_sizes(layout: RealIADLayout, category: str, views: Sequence[ViewCheck]) -> Iterator[Finding]:
    """Images of another size than the others of their camera; photographs that keep their sizes may be."""
    by_camera: dict[int, list[tuple[View, tuple[int, int]]]] = defaultdict(list)
    for check in views:
        if check.shape is not None:
            by_camera[check.view.number].append((check.view, check.shape))
    for camera, of_camera in sorted(by_camera.items()):
        (usual, frequency), *others = Counter(shape for _, shape in of_camera).most_common()
        if not others:
            continue
        common = f"{usual[1]}x{usual[0]}"
        if 2 * frequency < len(of_camera):
            message = f"camera {camera}: images of many sizes, none of half of them; all become one square"
            yield Finding("sizes_vary", category, "", message)
        elif layout.keeps_sizes:
            those = f"{len(of_camera) - frequency:,} of {len(of_camera):,} images are"
            message = f"camera {camera}: {those} of another size than {common}; all become one square"
            yield Finding("sizes_vary", category, "", message)
        else:
            for view, shape in of_camera:
                if shape != usual:
                    message = f"is {shape[1]}x{shape[0]}, camera {camera}'s others are {common}"
                    yield Finding("wrong_size", category, view.image, message)


def check_splits(category: str, index: Index) -> Iterator[Finding]:
    """Splits with few samples, a test split with one class only, a training split with anomalous samples."""
    for split in TRAIN_AND_TEST:
        number = sum(sample.split == split for sample in index.samples)
        if number < MIN_SAMPLES:
            message = f"{number} samples in {split}; results on fewer than {MIN_SAMPLES} mean little"
            yield Finding("few_samples", category, "", message)
    test = [sample.label for sample in index.samples if sample.split == "test"]
    if test and len(set(test)) == 1:
        kind = "anomalous" if test[0] else "normal"
        message = f"all {len(test)} test samples are {kind}; no AUROC is defined"
        yield Finding("one_class", category, "", message)
    contaminated = contamination(index.samples)
    if contaminated is not None:
        yield Finding("contaminated", category, "", contaminated)


def count_samples(index: Index) -> Counts:
    """Counts of the samples that a category's annotations list."""
    total = Counts()
    for sample in index.samples:
        views = [view for view in sample.views if view is not None]
        train = sample.split == "train"
        total += Counts(
            train_samples=int(train),
            train_images=len(views) * train,
            train_anomalous=int(train and sample.label),
            test_samples=int(not train),
            test_images=len(views) * (not train),
            test_anomalous=int(not train and sample.label),
            hidden=sum("/NG/" in view.image and not view.label for view in views),
            masks=sum(view.mask is not None for view in views),
            incomplete=int(not all(sample.present)),
        )
    return total
