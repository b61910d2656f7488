"""LiveFeatures: a `FeatureSource` that decodes and runs the frozen encoder now."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idif.data.batch import Batch
from idif.data.decode import DECODED_AHEAD, decode_sample, decode_threads
from idif.data.features import FeatureSpec
from idif.data.index import Index, check_rows, truth
from idif.encoders.encode import check_image_size, encode_views
from idif.encoders.frozen import FrozenEncoder
from idif.prefetch import prefetch_map


class LiveFeatures:
    """Decodes ahead in threads and encodes on ``device`` in the caller's thread; features are float32."""

    def __init__(
        self, root: Path, index: Index, encoder: FrozenEncoder, image_size: int, device: torch.device
    ) -> None:
        """Moves the encoder to ``device``.

        Raises:
            ConfigError: ``image_size`` does not fit the encoder.
        """
        check_image_size(encoder, image_size)
        encoder.module.to(device)
        self._root, self._index, self._encoder, self._device = root, index, encoder, device
        self._spec = encoder.spec(image_size, "float32")

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample."""
        return self._index

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The rows of ``order``, in that order, on the device; see `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index. DatasetError (in its turn): a file cannot be read.
        """
        assert batch_size > 0, batch_size
        return self._batches(check_rows(self._index, order), batch_size)

    def _batches(self, order: list[int], batch_size: int) -> Iterator[Batch]:
        def decode(row: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return decode_sample(self._root, self._index.samples[row], self._spec.image_size)

        decoded = prefetch_map(decode, order, workers=decode_threads(), depth=DECODED_AHEAD * batch_size)
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                images, masks = zip(*islice(decoded, len(rows)), strict=True)
                yield self._encode(rows, np.stack(images), np.stack(masks))
        finally:
            decoded.close()

    def _encode(self, rows: list[int], images: npt.NDArray[Any], masks: npt.NDArray[Any]) -> Batch:
        present, labels = truth(self._index, rows)
        on_device = torch.from_numpy(images).to(self._device)
        return Batch(
            rows=torch.tensor(rows, device=self._device),
            images=on_device,
            features=encode_views(self._encoder, on_device, present),
            view_mask=present.to(self._device),
            labels=labels.to(self._device),
            masks=torch.from_numpy(masks).to(self._device),
        )
