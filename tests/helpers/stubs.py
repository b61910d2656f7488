"""A feature source in memory and a method that needs no training, for tests of what stands around them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.data.index import Index, Sample, View
from idif.methods.protocol import Method
from tests.helpers.tiny_data import untrained

SIZE = 32


class BrightestIsWorst(Method):
    """Calls bright pixels anomalous, the more so the more views it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, corrupted: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        return {"loss": self.weight}

    def encode(self, images: Tensor, view_mask: Tensor) -> Tensor:
        return images.mean(dim=2) * view_mask[:, :, None, None]

    def anomaly_maps(self, encoded: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        seen = view_mask.sum(dim=1)[:, None, None, None]
        shared = (encoded * view_mask[:, :, None, None]).amax(dim=(1, 2, 3), keepdim=True)
        return (encoded * self.weight + 0.1 * seen * shared) * view_mask[:, :, None, None]

    def subset_maps(self, encoded: Tensor, features: dict[str, Tensor], view_masks: Tensor) -> Tensor:
        return torch.cat([self.anomaly_maps(encoded, features, mask)[mask] for mask in view_masks])

    def traceable(self) -> torch.nn.Module:
        raise NotImplementedError


class InMemory:
    """Random images with bright squares where the labels say so."""

    def __init__(self, present: Tensor, labels: Tensor, seed: int = 0, category: str = "cup") -> None:
        generator = torch.Generator().manual_seed(seed)
        count, views = present.shape
        self.images = torch.randint(0, 120, (count, views, 3, SIZE, SIZE), generator=generator).byte()
        self.masks = torch.zeros(count, views, SIZE, SIZE, dtype=torch.bool)
        self.masks[:, :, 10:15, 4:12] = (labels & present)[:, :, None, None]
        glow = torch.randint(0, 130, (count, views, 1, 1, 1), generator=generator)
        self.images += (self.masks[:, :, None] * glow).byte()
        self.images *= present[:, :, None, None, None]
        self.present, self.labels = present, labels & present
        self._index = Index(
            tuple(range(1, views + 1)),
            tuple(self._sample(category, row, present[row], labels[row]) for row in range(count)),
        )

    @staticmethod
    def _sample(category: str, row: int, present: Tensor, labels: Tensor) -> Sample:
        views: list[View | None] = []
        for slot, (there, bad) in enumerate(zip(present.tolist(), labels.tolist(), strict=True)):
            stem = f"{row}_{slot}"
            view = View(slot + 1, f"{stem}.png", f"{stem}_m.png" if bad else None, "cut" if bad else "OK")
            views.append(view if there else None)
        return Sample(f"{category}/S{row:04d}", category, "test", tuple(views))

    @property
    def spec(self) -> FeatureSpec:
        return untrained().spec(SIZE, "float32")

    @property
    def index(self) -> Index:
        return self._index

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(order), batch_size):
            rows = torch.tensor(list(order[start : start + batch_size]))
            yield Batch(rows, self.images[rows], {}, self.present[rows], self.labels[rows], self.masks[rows])
