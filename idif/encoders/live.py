"""`LiveFeatures`: a `FeatureSource` that runs the frozen encoders on the fly."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from idif.data.batch import Batch, input_presence, make_batch
from idif.data.decode import DECODED_AHEAD, decode_threads
from idif.data.features import FeatureSpec
from idif.data.index import Index, check_rows
from idif.encoders.encode import Array, EncoderSet
from idif.errors import ConfigError
from idif.prefetch import prefetch_map


class LiveFeatures:
    """Decodes ahead in threads and encodes on ``device`` in the caller's thread; features are float32."""

    def __init__(self, root: Path, index: Index, encoders: EncoderSet, device: torch.device) -> None:
        """Move the encoders to ``device``.

        Raises:
            ConfigError: the encoder set has variants, which only a store supports.
        """
        if encoders.variants:
            raise ConfigError("variants: a live encoder gives the plain input alone; build a store")
        self._root, self._index, self._device = root, index, device
        self._encoders = encoders.to(device)
        self._spec = encoders.spec("float32")

    @property
    def spec(self) -> FeatureSpec:
        """The specification of its arrays."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample."""
        return self._index

    def encoder_set(self) -> EncoderSet:
        """The frozen encoders, on the device."""
        return self._encoders

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Batches of the rows of ``order``, on the device; see `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index. DatasetError (at the row's batch): a file cannot be read.
        """
        assert batch_size > 0, batch_size
        assert variants is None, "a live encoder has no variants"
        return self._batches(check_rows(self._index, order), batch_size)

    def _batches(self, order: list[int], batch_size: int) -> Iterator[Batch]:
        def decode(row: int) -> dict[str, Array]:
            return self._encoders.decode(self._root, self._index.samples[row])

        decoded = prefetch_map(decode, order, workers=decode_threads(), depth=DECODED_AHEAD * batch_size)
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                yield self._encode(rows, list(islice(decoded, len(rows))))
        finally:
            decoded.close()

    def _encode(self, rows: list[int], decoded: list[dict[str, Array]]) -> Batch:
        stacked = {
            name: torch.from_numpy(np.stack([one[name] for one in decoded])).to(self._device)
            for name in decoded[0]
        }
        arrays = self._encoders.encode(stacked, input_presence(self._index, rows, self._spec.inputs))
        return make_batch(self._index, rows, arrays, self._spec.inputs).to(self._device)
