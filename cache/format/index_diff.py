"""Names every way in which data differ from what a store was built from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.format.manifest import SampleContent
from idif.data.index import Index, Sample


@dataclass(frozen=True)
class Difference:
    """One sample, or one view of it, in which data and store differ."""

    sample_id: str
    """Empty where all samples are concerned."""
    what: str

    def __str__(self) -> str:
        return f"sample {self.sample_id}{self.what}" if self.sample_id else self.what


def index_differences(stored: Index, data: Index) -> Iterator[Difference]:
    """Samples, views and labels that differ; no image is read and paths may differ.

    The order of the samples does not matter, only their ids.
    """
    if stored.view_numbers != data.view_numbers:
        mine, other = list(stored.view_numbers), list(data.view_numbers)
        yield Difference("", f"view numbers: the store has {mine}, the data {other}")
        return
    theirs = {sample.sample_id: sample for sample in data.samples}
    known = {sample.sample_id for sample in stored.samples}
    for sample in stored.samples:
        if sample.sample_id not in theirs:
            yield Difference(sample.sample_id, " is in the store but not in the data")
        else:
            yield from _view_differences(sample, theirs[sample.sample_id], stored.view_numbers)
    for sample in data.samples:
        if sample.sample_id not in known:
            yield Difference(sample.sample_id, " is in the data but not in the store")


def _view_differences(stored: Sample, data: Sample, numbers: Sequence[int]) -> Iterator[Difference]:
    if (stored.category, stored.split) != (data.category, data.split):
        here, there = f"{stored.category}/{stored.split}", f"{data.category}/{data.split}"
        yield Difference(stored.sample_id, f": the store has it in {here}, the data in {there}")
    for number, mine, other in zip(numbers, stored.views, data.views, strict=True):
        what = ""
        if mine is None or other is None:
            if mine is not other:
                where = "the data but not in the store" if mine is None else "the store but not in the data"
                what = f"is in {where}"
        elif mine.anomaly_class != other.anomaly_class:
            what = f"label is {mine.anomaly_class} in the store, {other.anomaly_class} in the data"
        elif (mine.mask is None) != (other.mask is None):
            what = f"a mask is in the {'data' if mine.mask is None else 'store'} only"
        if what:
            yield Difference(stored.sample_id, f", view {number}: {what}")


def content_differences(sample: Sample, stored: SampleContent, data: SampleContent) -> Iterator[Difference]:
    """Views whose image or mask file has other bytes than the store was built from."""
    for view, mine, other in zip(sample.views, stored, data, strict=True):
        if view is None or mine is None or other is None:
            continue
        for kind, path, same in (
            ("image", view.image, mine.image == other.image),
            ("mask", view.mask, mine.mask == other.mask),
        ):
            if not same:
                what = f", view {view.number}: the {kind}'s content differs ({path})"
                yield Difference(sample.sample_id, what)
