"""What every `FeatureSource` must do, whatever it is; run against each by its own test file."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from idif.data.batch import Batch
from idif.data.features import FeatureSource

DTYPES = {"float16": torch.float16, "uint8": torch.float16, "float32": torch.float32}
"""Storage type -> type of the features that are handed out."""

ORDERS = {
    "forwards": lambda rows: list(range(rows)),
    "backwards": lambda rows: list(range(rows))[::-1],
    "scattered": lambda rows: [(7 * i + 3) % rows for i in range(rows - 2)],
    "with duplicates": lambda rows: [0, rows - 1, 0, 0, 2],
    "one row": lambda rows: [rows - 1],
    "empty": lambda rows: [],
}


def join(batches: list[Batch]) -> Batch:
    """Batches one after another as one."""
    return Batch(
        rows=torch.cat([b.rows for b in batches]),
        images=torch.cat([b.images for b in batches]),
        features={name: torch.cat([b.features[name] for b in batches]) for name in batches[0].features},
        view_mask=torch.cat([b.view_mask for b in batches]),
        labels=torch.cat([b.labels for b in batches]),
        masks=torch.cat([b.masks for b in batches]),
    )


def assert_same(first: Batch, second: Batch) -> None:
    """Bit for bit the same."""
    for name in ("rows", "images", "view_mask", "labels", "masks"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.features.keys() == second.features.keys()
    for name, x in first.features.items():
        assert torch.equal(x, second.features[name]), name


def check_order_and_shapes(source: FeatureSource) -> None:
    spec, views = source.spec, len(source.index.view_numbers)
    size = spec.image_size
    for name, make in ORDERS.items():
        order = make(len(source.index))
        batches = list(source.batches(order, 3))
        assert [len(b) for b in batches] == [3] * (len(order) // 3) + [len(order) % 3] * (len(order) % 3 > 0)
        assert [int(r) for b in batches for r in b.rows] == order, name
        for batch in batches:
            B = len(batch)
            assert batch.rows.dtype == torch.int64
            assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (B, views, 3, size, size))
            assert (batch.masks.dtype, batch.masks.shape) == (torch.bool, (B, views, size, size))
            assert (batch.view_mask.dtype, batch.view_mask.shape) == (torch.bool, (B, views))
            assert (batch.labels.dtype, batch.labels.shape) == (torch.bool, (B, views))
            assert list(batch.features) == [layer.name for layer in spec.layers]
            for layer in spec.layers:
                x = batch.features[layer.name]
                assert (x.dtype, x.shape) == (DTYPES[spec.storage], (B, views, *spec.shape(layer)))


def check_agrees_with_index(source: FeatureSource) -> None:
    absent = 0
    for batch in source.batches(range(len(source.index)), 4):
        for i, row in enumerate(batch.rows.tolist()):
            sample = source.index.samples[row]
            assert tuple(batch.view_mask[i].tolist()) == sample.present
            assert tuple(batch.labels[i].tolist()) == sample.labels
            for slot, view in enumerate(sample.views):
                parts = [batch.images[i, slot], *(x[i, slot] for x in batch.features.values())]
                if view is None:
                    absent += 1
                    assert not any(part.any() for part in parts)
                    assert not batch.masks[i, slot].any()
                else:
                    assert all(part.any() for part in parts)
                    assert bool(batch.masks[i, slot].any()) == (view.mask is not None)
    assert absent > 0, "the contract needs data with an absent view"


def check_batch_size_is_free(source: FeatureSource) -> None:
    """A row is the same whoever shares its batch: exactly from storage, to rounding from a live encoder."""
    order = [(5 * i + 1) % len(source.index) for i in range(len(source.index))]
    whole = join(list(source.batches(order, len(order))))
    for batch_size in (1, 3):
        parts = join(list(source.batches(order, batch_size)))
        if source.spec.storage != "float32":
            assert_same(parts, whole)
        for name, x in whole.features.items():
            assert_close(parts.features[name], x, rtol=1e-4, atol=1e-4)
        assert torch.equal(parts.images, whole.images)


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


CONTRACT: list[Callable[[FeatureSource], None]] = [
    check_order_and_shapes,
    check_agrees_with_index,
    check_batch_size_is_free,
    check_rows_outside_are_refused,
    check_closing_stops_threads,
]


def check_stored_agrees_with_live(stored: FeatureSource, live: FeatureSource) -> None:
    """Same pixels and truth for the same sample id; features equal to the rounding of their storage."""
    row_of = {sample.sample_id: row for row, sample in enumerate(live.index.samples)}
    order = [row_of[sample.sample_id] for sample in stored.index.samples]
    mine = join(list(stored.batches(range(len(order)), 4)))
    theirs = join(list(live.batches(order, 4)))
    for name in ("images", "view_mask", "labels", "masks"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    for name, x in mine.features.items():
        exact = theirs.features[name]
        # 2^-11 is float16's rounding; the rest leaves room for another batch's order of addition
        room = exact.abs() * (2**-11 + 1e-4) + 1e-4
        if stored.spec.storage == "uint8":
            # half of one of 255 steps up to the largest value of a sample's channel
            room = room + exact.amax(dim=(1, 3, 4), keepdim=True) / 255 * 0.502
        assert bool(((x.float() - exact).abs() <= room).all()), name
