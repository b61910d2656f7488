"""Reports all differences between a dataset and the data that a store was built from."""

from collections.abc import Iterator
from dataclasses import dataclass

from cache.format.manifest import SampleContent
from idif.data.index import Index, Sample


@dataclass(frozen=True)
class Difference:
    """A difference between data and store, in one sample or view."""

    sample_id: str
    """Empty for a difference that concerns all samples."""
    what: str

    def __str__(self) -> str:
        return f"sample {self.sample_id}{self.what}" if self.sample_id else self.what


def index_differences(stored: Index, data: Index) -> Iterator[Difference]:
    """Differences in samples, views and labels; reads no images and ignores paths.

    Samples are matched by id, regardless of their order, and views by number, regardless of their slots: a
    category that was built beside others has empty slots for the cameras that only those have.
    """
    numbers = sorted({number for sample in data.samples for number in sample.by_number})
    if not set(numbers) <= set(stored.view_numbers):
        yield Difference("", f"view numbers: the store has {list(stored.view_numbers)}, the data {numbers}")
        return
    data_samples = {sample.sample_id: sample for sample in data.samples}
    stored_ids = {sample.sample_id for sample in stored.samples}
    for sample in stored.samples:
        if sample.sample_id not in data_samples:
            yield Difference(sample.sample_id, " is in the store but not in the data")
        else:
            yield from _sample_differences(sample, data_samples[sample.sample_id])
    for sample in data.samples:
        if sample.sample_id not in stored_ids:
            yield Difference(sample.sample_id, " is in the data but not in the store")


def _sample_differences(stored: Sample, data: Sample) -> Iterator[Difference]:
    sample_id = stored.sample_id
    if (stored.category, stored.split) != (data.category, data.split):
        before, now = f"{stored.category}/{stored.split}", f"{data.category}/{data.split}"
        yield Difference(sample_id, f": the store has it in {before}, the data in {now}")
    if stored.sample_class != data.sample_class:
        yield Difference(
            sample_id, f": label is {stored.sample_class} in the store, {data.sample_class} in the data"
        )
    for name, path in stored.inputs.items():
        if (path is None) != (data.inputs.get(name) is None):
            yield Difference(sample_id, f": {name} {_only_in('data' if path is None else 'store')}")
    before_views, views = stored.by_number, data.by_number
    for number in sorted(before_views | views):
        before_view, view, what = before_views.get(number), views.get(number), ""
        if before_view is None or view is None:
            if before_view is not view:
                what = _only_in("data" if before_view is None else "store")
        elif before_view.anomaly_class != view.anomaly_class:
            what = f"label is {before_view.anomaly_class} in the store, {view.anomaly_class} in the data"
        elif (before_view.mask is None) != (view.mask is None):
            what = f"a mask is in the {'data' if before_view.mask is None else 'store'} only"
        if what:
            yield Difference(sample_id, f", view {number}: {what}")


def _only_in(place: str) -> str:
    return f"is in the {place} but not in the {'data' if place == 'store' else 'store'}"


def content_differences(sample: Sample, stored: SampleContent, data: SampleContent) -> Iterator[Difference]:
    """Files of a sample whose content has changed since the store was built."""
    for view, before, now in zip(sample.views, stored.views, data.views, strict=True):
        if view is None or before is None or now is None:
            continue
        for kind, path, same in (
            ("image", view.image, before.image == now.image),
            ("mask", view.mask, before.mask == now.mask),
        ):
            if not same:
                what = f", view {view.number}: the {kind}'s content differs ({path})"
                yield Difference(sample.sample_id, what)
    for name, sha256 in stored.inputs.items():
        if sha256 != data.inputs.get(name):
            path = sample.inputs.get(name)
            yield Difference(sample.sample_id, f": the {name}'s content differs ({path})")
