"""`Subset`: a feature source with some of the rows of another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from idif.data.batch import Batch
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index, Split, check_rows


@dataclass(frozen=True)
class Subset:
    """A `FeatureSource` with some rows of another, renumbered from 0."""

    source: FeatureSource
    rows: tuple[int, ...]

    @property
    def spec(self) -> FeatureSpec:
        """Specification of the source's arrays."""
        return self.source.spec

    @cached_property
    def index(self) -> Index:
        """Row -> sample."""
        return self.source.index.take(self.rows)

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """See `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index.
        """
        own = check_rows(self.index, order)
        start = 0
        for batch in self.source.batches([self.rows[row] for row in own], batch_size, variants):
            here = own[start : start + len(batch)]
            start += len(batch)
            yield replace(batch, rows=torch.tensor(here, dtype=torch.int64, device=batch.rows.device))


def select(source: FeatureSource, category: str, split: Split) -> FeatureSource:
    """The rows of one category and split; the source itself if it has no others."""
    wanted = source.index.rows(lambda sample: sample.category == category and sample.split == split)
    return source if len(wanted) == len(source.index) else Subset(source, tuple(wanted))
