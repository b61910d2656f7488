"""Reads a dataset of weld runs as an `Index`: one category, a sample per run, five views."""

from collections.abc import Sequence
from pathlib import Path

from idif.data.index import NORMAL_CLASS, Index, Sample, Split, View
from idif.datasets.weld.manifest import STILL_COUNT, WeldRun, read_manifest, run_files
from idif.errors import DatasetError
from idif.paths import shown

CATEGORY = "weld"
"""The only category: one model learns from all runs, and tells defects apart by their sample's class."""


def read_weld(
    root: Path,
    split: Split | None = None,
    *,
    views: Sequence[int] | None = None,
    drop_incomplete: bool = False,
) -> Index:
    """The runs of a split (all when None), in the manifest's order.

    A still is view 1 to 5 by the order of the files' names; the sixth and later ones are not read. The label
    is the run's: no still is labeled, since no one says on which of them a defect shows.

    Args:
        views: numbers of the stills to read; all when None.
        drop_incomplete: leave out runs that lack a still or another input.

    Raises:
        DatasetError: the manifest or a run's folder cannot be used, or no run is left.
    """
    numbers = tuple(sorted(views)) if views is not None else tuple(range(1, STILL_COUNT + 1))
    if not set(numbers) <= set(range(1, STILL_COUNT + 1)):
        raise DatasetError(f"data.views: weld runs have views 1 to {STILL_COUNT}, got {list(numbers)}")
    samples = [_sample(root, run, numbers) for run in read_manifest(root) if split in (None, run.split)]
    if drop_incomplete:
        samples = [sample for sample in samples if all(sample.present) and all(sample.inputs.values())]
    if not samples:
        raise DatasetError(
            f"{shown(str(root))}: there is no run" + (f" in the split {split}" if split else "")
        )
    return Index(numbers, tuple(samples))


def _sample(root: Path, run: WeldRun, numbers: Sequence[int]) -> Sample:
    files = run_files(root, run)
    views = tuple(
        View(number, files.stills[number - 1], None, NORMAL_CLASS) if number <= len(files.stills) else None
        for number in numbers
    )
    return Sample(run.folder, CATEGORY, run.split, views, files.inputs, run.defect)
