"""Checks a whole dataset: reads every file once and reports every fault."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from idif.data.index import Index, Sample, View
from idif.datasets.checks.category import (
    SameImages,
    check_sizes,
    check_splits,
    compare_views,
    count_samples,
)
from idif.datasets.checks.findings import ERRORS, WARNINGS, CheckReport, Finding
from idif.datasets.checks.view import ViewCheck, check_view
from idif.datasets.realiad.files import RealIADLayout, annotation_files, list_categories
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.realiad.statistics import Counts, count_differences, is_complete_set
from idif.errors import DatasetError
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent


def check_dataset(
    layout: RealIADLayout,
    *,
    categories: Sequence[str] = (),
    workers: int = 2,
    progress: Progress = silent,
) -> CheckReport:
    """Open every image and mask once. Needs 1 kB of memory for each until its category ends.

    Errors and warnings are those of `findings.ERRORS` and `findings.WARNINGS`. An image has a wrong size
    where at least half of its camera's images share another size; where no size is that common, or the images
    are photographs that an import kept as they are, sizes vary.

    Args:
        categories: empty for all.
        workers: threads that read.

    Raises:
        DatasetError: a folder or category does not exist. Faults inside are reported, not raised.
    """
    root = layout.root
    files = annotation_files(layout, categories)
    known = list_categories(layout)
    findings: list[Finding] = []
    indexes: dict[str, Index] = {}
    for category, path in files.items():
        try:
            indexes[category] = read_realiad(layout, categories=[category])
        except DatasetError as error:
            file = path.relative_to(root).as_posix()
            findings.append(Finding("annotations", category, file, str(error)))

    total = sum(_files(index) for index in indexes.values())
    done = 0
    same: SameImages = {}
    sources: dict[str | None, str | None] = {}
    for category, index in indexes.items():
        checked: list[ViewCheck] = []
        for view_check in _check_views(root, index, known, workers):
            checked.append(view_check)
            done += 1 + (view_check.view.mask is not None)
            progress(done, total, category)
        found = [finding for view_check in checked for finding in view_check.findings]
        found += check_sizes(layout, category, checked)
        found += compare_views(category, checked, same)
        found += check_splits(category, index)
        sources |= {file: view.source for _, view in _views(index) for file in (view.image, view.mask)}
        findings += [replace(finding, source=sources.get(finding.file)) for finding in found]

    counts = {category: count_samples(index) for category, index in indexes.items()}
    complete = is_complete_set(files, layout.annotations)
    if complete and counts:
        totals = sum(counts.values(), Counts())
        findings += [Finding("counts", "", "", text) for text in count_differences(totals)]
    return CheckReport(
        root=str(root),
        images=layout.images,
        annotations=layout.annotations,
        files=total,
        counts=counts,
        views=tuple(sorted({number for index in indexes.values() for number in index.view_numbers})),
        whole=complete,
        errors=tuple(finding for finding in findings if finding.kind in ERRORS),
        warnings=tuple(finding for finding in findings if finding.kind in WARNINGS),
    )


def _views(index: Index) -> Iterator[tuple[Sample, View]]:
    return ((sample, view) for sample in index.samples for view in sample.views if view is not None)


def _files(index: Index) -> int:
    """Number of images and masks that the index lists."""
    return sum(1 + (view.mask is not None) for _, view in _views(index))


def _check_views(root: Path, index: Index, known: Sequence[str], workers: int) -> Generator[ViewCheck]:
    has_masks = any(view.mask is not None for _, view in _views(index))

    def check(pair: tuple[Sample, View]) -> ViewCheck:
        return check_view(root, *pair, has_masks=has_masks, categories=known)

    return prefetch_map(check, _views(index), workers=workers, depth=8 * workers)
