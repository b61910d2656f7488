"""What only shows when the pictures of a category are held against each other."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np

from idif.data.index import Index, Split
from idif.datasets.checks.findings import Finding
from idif.datasets.checks.thumbnails import exchanged_views, near_duplicates
from idif.datasets.checks.view import ViewCheck
from idif.datasets.contamination import contamination
from idif.datasets.realiad.statistics import Counts

DARK, BRIGHT = 8.0, 247.0
"""Mean grey value, 0..255, below or above which a picture shows nothing."""
UNLIKE_ITS_CAMERA = 64.0
"""Mean grey value away from the camera's median that is extreme."""
FEW = 10
"""Fewer samples than these in a split are few."""

SplitsOf = dict[bytes, dict[Split, str]]
"""Digest of an image file -> the first file of each split that has these bytes."""


def compare_looks(category: str, looks: Sequence[ViewCheck], splits: SplitsOf) -> Iterator[Finding]:
    """Everything wrong or odd among the views of one category.

    Args:
        splits: what earlier categories held; this one's files are added.
    """
    yield from _sizes(category, looks)
    yield from _in_both_splits(category, looks, splits)
    seen = [look for look in looks if look.picture is not None]
    if seen:
        yield from _likenesses(category, seen)
        yield from _brightness(category, seen)


def _sizes(category: str, looks: Sequence[ViewCheck]) -> Iterator[Finding]:
    by_camera: dict[int, list[ViewCheck]] = defaultdict(list)
    for look in looks:
        if look.shape is not None:
            by_camera[look.view.number].append(look)
    for camera, of_camera in sorted(by_camera.items()):
        shape, often = Counter(look.shape for look in of_camera).most_common(1)[0]
        if shape is None or often == len(of_camera):
            continue
        usual = f"{shape[1]}x{shape[0]}"
        if 2 * often < len(of_camera):
            message = f"camera {camera}: images of many sizes, none of half of them; all become one square"
            yield Finding("sizes_vary", category, "", message)
            continue
        for look in of_camera:
            if look.shape is not None and look.shape != shape:
                message = f"is {look.shape[1]}x{look.shape[0]}, camera {camera}'s others are {usual}"
                yield Finding("wrong_size", category, look.view.image, message)


def _in_both_splits(category: str, looks: Sequence[ViewCheck], splits: SplitsOf) -> Iterator[Finding]:
    for look in looks:
        if look.digest is None:
            continue
        of = splits.setdefault(look.digest, {})
        first = of.setdefault(look.sample.split, look.view.image) == look.view.image
        if first and len(of) == 2:
            file = of["test"]
            yield Finding("train_and_test", category, file, f"has the same bytes as {of['train']}")


def _likenesses(category: str, looks: Sequence[ViewCheck]) -> Iterator[Finding]:
    thumbnails = np.stack([look.picture for look in looks if look.picture is not None])
    ids: dict[str, int] = {}
    owners = np.array([ids.setdefault(look.sample.sample_id, len(ids)) for look in looks])
    cameras = np.array([look.view.number for look in looks])
    for i, j in exchanged_views(thumbnails, owners, cameras):
        first, second = looks[i].view, looks[j].view
        cameras_of = f"cameras {first.number} and {second.number}"
        message = f"looks as if it were exchanged with {second.image} ({cameras_of})"
        yield Finding("misplaced_view", category, first.image, message)
    for i, j in near_duplicates(thumbnails, owners, cameras):
        one, two = looks[i], looks[j]
        if one.digest == two.digest and one.sample.split != two.sample.split:
            continue  # told as an error
        how = "has the same bytes as" if one.digest == two.digest else "looks nearly like"
        yield Finding("near_duplicate", category, two.view.image, f"{how} {one.view.image}")


def _brightness(category: str, looks: Sequence[ViewCheck]) -> Iterator[Finding]:
    means = np.array([look.picture.mean() for look in looks if look.picture is not None])
    cameras = np.array([look.view.number for look in looks])
    for camera in np.unique(cameras):
        median = float(np.median(means[cameras == camera]))
        for place in np.flatnonzero(cameras == camera).tolist():
            mean = float(means[place])
            if not DARK <= mean <= BRIGHT:
                message = f"mean grey value {mean:.0f} of 255"
            elif abs(mean - median) > UNLIKE_ITS_CAMERA:
                message = f"mean grey value {mean:.0f} of 255, camera {camera}'s median is {median:.0f}"
            else:
                continue
            yield Finding("brightness", category, looks[place].view.image, message)


def thin_splits(category: str, index: Index) -> Iterator[Finding]:
    """Splits of few samples, a test split that has one class only, a training split that has both."""
    for split in get_args(Split):
        number = sum(sample.split == split for sample in index.samples)
        if number < FEW:
            message = f"{number} samples in {split}; results on fewer than {FEW} mean little"
            yield Finding("few_samples", category, "", message)
    test = [sample.label for sample in index.samples if sample.split == "test"]
    if test and len(set(test)) == 1:
        what = "anomalous" if test[0] else "normal"
        message = f"all {len(test)} test samples are {what}; no AUROC is defined"
        yield Finding("one_class", category, "", message)
    dirty = contamination(index.samples)
    if dirty is not None:
        yield Finding("contaminated", category, "", dirty)


def count(index: Index) -> Counts:
    """What a category's annotations list."""
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
