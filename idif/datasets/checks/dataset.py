"""Read everything a dataset holds once, and tell every fault before hours are spent on it."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from idif.data.index import Index, Sample, View
from idif.datasets.checks.category import SplitsOf, compare_looks, count, thin_splits
from idif.datasets.checks.findings import ERRORS, WARNINGS, CheckReport, Finding
from idif.datasets.checks.view import ViewCheck, look_at
from idif.datasets.realiad.files import annotation_files, list_categories
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.realiad.statistics import Counts, differences, is_whole
from idif.errors import DatasetError
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent


def check_dataset(
    root: Path,
    *,
    images: str = "realiad_256",
    annotations: str = "realiad_jsons",
    categories: Sequence[str] = (),
    workers: int = 2,
    progress: Progress = silent,
) -> CheckReport:
    """Open every image and mask once, in ``workers`` threads; 1 kB is kept of each until its category ends.

    What is an error and what a warning: `findings.ERRORS`, `findings.WARNINGS`. An image has a wrong size
    where at least half of its camera's images share another; where no size is that common, sizes vary.

    Args:
        images, annotations, categories: as for `read_realiad`.

    Raises:
        DatasetError: a folder or category does not exist. What is wrong inside is reported, not raised.
    """
    files = annotation_files(root, images=images, annotations=annotations, categories=categories)
    known = list_categories(root, annotations)
    findings: list[Finding] = []
    indexes: dict[str, Index] = {}
    for category, path in files.items():
        try:
            indexes[category] = read_realiad(
                root, images=images, annotations=annotations, categories=[category]
            )
        except DatasetError as error:
            file = path.relative_to(root).as_posix()
            findings.append(Finding("annotations", category, file, str(error)))

    total = sum(_files(index) for index in indexes.values())
    done = 0
    splits: SplitsOf = {}
    for category, index in indexes.items():
        looks: list[ViewCheck] = []
        for look in _look_at_all(root, index, known, workers):
            looks.append(look)
            done += 1 + (look.view.mask is not None)
            progress(done, total, category)
        findings += [finding for look in looks for finding in look.findings]
        findings += compare_looks(category, looks, splits)
        findings += thin_splits(category, index)

    counts = {category: count(index) for category, index in indexes.items()}
    whole = is_whole(files, annotations)
    if whole and counts:
        findings += [Finding("counts", "", "", text) for text in differences(sum(counts.values(), Counts()))]
    return CheckReport(
        root=str(root),
        images=images,
        annotations=annotations,
        files=total,
        counts=counts,
        views=tuple(sorted({number for index in indexes.values() for number in index.view_numbers})),
        whole=whole,
        errors=tuple(finding for finding in findings if finding.kind in ERRORS),
        warnings=tuple(finding for finding in findings if finding.kind in WARNINGS),
    )


def _views(index: Index) -> Iterator[tuple[Sample, View]]:
    return ((sample, view) for sample in index.samples for view in sample.views if view is not None)


def _files(index: Index) -> int:
    """Images and masks listed."""
    return sum(1 + (view.mask is not None) for _, view in _views(index))


def _look_at_all(root: Path, index: Index, known: Sequence[str], workers: int) -> Generator[ViewCheck]:
    masked = any(view.mask is not None for _, view in _views(index))

    def look(pair: tuple[Sample, View]) -> ViewCheck:
        return look_at(root, *pair, masked=masked, categories=known)

    return prefetch_map(look, _views(index), workers=workers, depth=8 * workers)
