"""Checks that every `FeatureSource` must pass; each source's own test file runs them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from idif.data.arrays import DATA, ArraySpec
from idif.data.batch import Batch
from idif.data.features import MASKS, FeatureSource, FeatureSpec

DTYPES = {"float16": torch.float16, "uint8": torch.float16, "float32": torch.float32}
"""Storage type -> type of the features that are handed out."""

ORDERS: dict[str, Callable[[int], list[int]]] = {
    "forwards": lambda rows: list(range(rows)),
    "backwards": lambda rows: list(range(rows))[::-1],
    "scattered": lambda rows: [(7 * i + 3) % rows for i in range(rows - 2)],
    "with duplicates": lambda rows: [0, rows - 1, 0, 0, 2],
    "one row": lambda rows: [rows - 1],
    "empty": lambda rows: [],
}


def join(batches: list[Batch]) -> Batch:
    """Batches one after another as one."""
    first = batches[0]
    return replace(
        first,
        rows=torch.cat([b.rows for b in batches]),
        arrays={name: torch.cat([b.arrays[name] for b in batches]) for name in first.arrays},
        view_mask=torch.cat([b.view_mask for b in batches]),
        labels=torch.cat([b.labels for b in batches]),
        sample_labels=torch.cat([b.sample_labels for b in batches]),
        categories=tuple(category for b in batches for category in b.categories),
        present={name: torch.cat([b.present[name] for b in batches]) for name in first.present},
    )


def assert_same(first: Batch, second: Batch) -> None:
    """Bit for bit the same."""
    assert first.categories == second.categories
    for name in ("rows", "view_mask", "labels", "sample_labels"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    for left, right in ((first.arrays, second.arrays), (first.present, second.present)):
        assert left.keys() == right.keys()
        for name, x in left.items():
            assert x.dtype == right[name].dtype, name
            assert torch.equal(x, right[name]), name


def batch_shape(array: ArraySpec, views: int) -> tuple[int, ...]:
    """Shape of one sample's array in a batch, which has no axis of variants."""
    return (*((views,) if array.per_view else ()), *array.shape)


def batch_dtype(array: ArraySpec, spec: FeatureSpec) -> torch.dtype:
    """Type of an array in a batch."""
    if array.origin == DATA:
        return torch.bool if array.name == MASKS else torch.uint8
    return DTYPES[spec.storage]


def check_order_and_shapes(source: FeatureSource) -> None:
    spec, views = source.spec, len(source.index.view_numbers)
    for name, make in ORDERS.items():
        order = make(len(source.index))
        batches = list(source.batches(order, 3))
        assert [len(b) for b in batches] == [3] * (len(order) // 3) + [len(order) % 3] * (len(order) % 3 > 0)
        assert [int(r) for b in batches for r in b.rows] == order, name
        for batch in batches:
            B = len(batch)
            assert batch.rows.dtype == torch.int64
            for per_view in (batch.view_mask, batch.labels):
                assert (per_view.dtype, per_view.shape) == (torch.bool, (B, views))
            assert list(batch.present) == list(spec.inputs)
            for per_sample in (batch.sample_labels, *batch.present.values()):
                assert (per_sample.dtype, per_sample.shape) == (torch.bool, (B,))
            assert list(batch.arrays) == list(spec.arrays)
            for array in spec.arrays.values():
                x = batch.arrays[array.name]
                assert (x.dtype, x.shape) == (batch_dtype(array, spec), (B, *batch_shape(array, views)))


def check_agrees_with_index(source: FeatureSource) -> None:
    spec = source.spec
    input_of = {array.name: encoder.input for encoder in spec.encoders for array in encoder.arrays}
    absent_views, absent_inputs = 0, 0
    for batch in source.batches(range(len(source.index)), 4):
        for i, row in enumerate(batch.rows.tolist()):
            sample = source.index.samples[row]
            assert tuple(batch.view_mask[i].tolist()) == sample.present
            assert tuple(batch.labels[i].tolist()) == sample.labels
            assert bool(batch.sample_labels[i]) == sample.label
            assert batch.categories[i] == sample.category
            for name in spec.inputs:
                has_input = sample.inputs[name] is not None
                absent_inputs += not has_input
                assert bool(batch.present[name][i]) == has_input
                for array, taken in input_of.items():
                    assert taken != name or bool(batch.arrays[array][i].any()) == has_input
            for slot, view in enumerate(sample.views):
                absent_views += view is None
                for per_view in (a.name for a in spec.arrays.values() if a.per_view):
                    expected = view is not None and (per_view != MASKS or view.mask is not None)
                    assert bool(batch.arrays[per_view][i, slot].any()) == expected, per_view
    assert absent_views > 0 or not source.index.view_numbers, "the contract needs an absent view"
    assert absent_inputs > 0 or not spec.inputs, "the contract needs an absent input"


def check_batch_size_is_free(source: FeatureSource) -> None:
    """A row does not depend on its batch: exactly from storage, to rounding from a live encoder."""
    order = [(5 * i + 1) % len(source.index) for i in range(len(source.index))]
    together = join(list(source.batches(order, len(order))))
    for batch_size in (1, 3):
        parts = join(list(source.batches(order, batch_size)))
        if source.spec.storage != "float32":
            assert_same(parts, together)
        for name, x in together.arrays.items():
            if x.dtype.is_floating_point:
                assert_close(parts.arrays[name], x, rtol=1e-4, atol=1e-4)
            else:
                assert torch.equal(parts.arrays[name], x)


def check_rows_outside_are_refused(source: FeatureSource) -> None:
    for rows in ([len(source.index)], [0, -1]):
        with pytest.raises(IndexError, match=f"row {rows[-1]} "):
            list(source.batches(rows, 2))


def check_closing_stops_threads(source: FeatureSource) -> None:
    import threading

    before = threading.active_count()
    batches = source.batches(list(range(len(source.index))), 1)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def check_variants(source: FeatureSource) -> None:
    """The chosen variant of each entry in arrays that have variants, and the same values in all others."""
    count = len(source.spec.variants)
    if not count:
        return
    order = [(5 * i + 1) % len(source.index) for i in range(len(source.index) + 2)]
    each = [join(list(source.batches(order, 4, [variant] * len(order)))) for variant in range(count)]
    assert_same(join(list(source.batches(order, 3))), each[0])
    varied = [name for name, array in source.spec.arrays.items() if array.has_variants]
    assert varied
    for name in varied:
        assert not torch.equal(each[0].arrays[name], each[-1].arrays[name]), name
    chosen = [(3 * i + 1) % count for i in range(len(order))]
    mixed = join(list(source.batches(order, 3, chosen)))
    for name, x in mixed.arrays.items():
        for i, variant in enumerate(chosen):
            assert torch.equal(x[i], each[variant if name in varied else 0].arrays[name][i]), name
    for wrong in (count, -1):
        with pytest.raises(IndexError, match=f"variant {wrong} "):
            list(source.batches([0, 1], 2, [0, wrong]))


Check = Callable[[FeatureSource], None]

CONTRACT: list[Check] = [
    check_order_and_shapes,
    check_agrees_with_index,
    check_batch_size_is_free,
    check_rows_outside_are_refused,
    check_closing_stops_threads,
    check_variants,
]


def check_stored_agrees_with_live(stored: FeatureSource, live: FeatureSource) -> None:
    """Same pixels and truth for the same sample id; features equal to the rounding of their storage."""
    row_of = {sample.sample_id: row for row, sample in enumerate(live.index.samples)}
    order = [row_of[sample.sample_id] for sample in stored.index.samples]
    kept = join(list(stored.batches(range(len(order)), 4)))
    now = join(list(live.batches(order, 4)))
    for name in ("view_mask", "labels", "sample_labels"):
        assert torch.equal(getattr(kept, name), getattr(now, name)), name
    for name, exact in now.arrays.items():
        array = stored.spec.arrays[name]
        if array.origin == DATA:
            assert torch.equal(kept.arrays[name], exact), name
            continue
        # 2^-11 is float16's rounding; the rest leaves room for another batch's order of addition
        room = exact.abs() * (2**-11 + 1e-4) + 1e-4
        if stored.spec.storage == "uint8":
            # half of one of the steps up to the largest magnitude of a sample's channel
            axis = 1 + array.axes.index("channel") - array.has_variants
            others = [i for i in range(1, exact.ndim) if i != axis]
            top = exact.abs().amax(dim=others, keepdim=True) if others else exact.abs()
            room = room + top / (127 if array.signed else 255) * 0.502
        assert bool(((kept.arrays[name].float() - exact).abs() <= room).all()), name
