"""A feature source in memory and methods that need no training, for tests of what stands around them."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.batch import Batch, make_batch
from idif.data.features import IMAGES, MASKS, FeatureSpec
from idif.data.index import Index, Sample, View
from idif.evaluation.calibration import Calibration
from idif.evaluation.scoring import Scorer
from idif.methods.protocol import Method, Needs, Scores

SIZE = 32
CPU = torch.device("cpu")


class BrightestOneByOne(Method):
    """Calls bright pixels anomalous, the more so the more views it sees; one choice of views at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.needs = Needs(training=(IMAGES,), scoring=(IMAGES,))
        self.weight = torch.nn.Parameter(torch.ones(()))

    def score(self, batch: Batch) -> Scores:
        return Scores(maps={"map": self.maps_of(batch.images, batch.view_mask)})

    def describe(self) -> dict[str, str]:
        return {"head": "brightest", "map": "brightness of the pixel and of the sample's brightest"}

    def maps_of(self, images: Tensor, view_mask: Tensor) -> Tensor:
        """Maps [B,V,H,W] of images uint8 [B,V,3,H,W], of the views of ``view_mask`` alone."""
        brightness = (images.float() / 255).mean(dim=2) * view_mask[:, :, None, None]
        seen = view_mask.sum(dim=1)[:, None, None, None]
        brightest = brightness.amax(dim=(1, 2, 3), keepdim=True)
        return (brightness * self.weight + 0.1 * seen * brightest) * view_mask[:, :, None, None]


class BrightestIsWorst(BrightestOneByOne):
    """The same, for many choices of views at once."""

    def encode_batch(self, batch: Batch) -> Tensor:
        return batch.images

    def score_subsets(self, encoded: Tensor, batch: Batch, view_masks: Tensor) -> Tensor:
        return torch.cat([self.maps_of(encoded, mask)[mask] for mask in view_masks])


def scorer(
    config: EvalConfig, method: Method | None = None, calibration: Calibration | None = None
) -> Scorer:
    """A scorer on the CPU, of `BrightestIsWorst` where no method is given."""
    return Scorer(config, BrightestIsWorst() if method is None else method, CPU, calibration)


class InMemory:
    """Random images with bright squares where the labels say so; no features."""

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
        for slot, (shown, bad) in enumerate(zip(present.tolist(), labels.tolist(), strict=True)):
            stem = f"{row}_{slot}"
            view = View(slot + 1, f"{stem}.png", f"{stem}_m.png" if bad else None, "cut" if bad else "OK")
            views.append(view if shown else None)
        return Sample(f"{category}/S{row:04d}", category, "test", tuple(views))

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec((), SIZE, "float32")

    @property
    def index(self) -> Index:
        return self._index

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        assert variants is None
        return batches_of(self._index, {IMAGES: self.images, MASKS: self.masks}, order, batch_size)


def batches_of(
    index: Index, arrays: Mapping[str, Tensor], order: Sequence[int], batch_size: int
) -> Iterator[Batch]:
    """Batches of some rows of arrays [N,...]."""
    for start in range(0, len(order), batch_size):
        rows = list(order[start : start + batch_size])
        yield make_batch(index, rows, {name: values[rows] for name, values in arrays.items()})
