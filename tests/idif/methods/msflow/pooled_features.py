"""Pooled feature maps of two scales in memory, and a tiny MSFlow for them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idif.config.sections import Config
from idif.data.arrays import feature_map
from idif.data.batch import Batch
from idif.data.features import MASKS, EncoderSpec, FeatureSpec
from idif.data.index import Index, Sample, View
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.msflow.model import MSFlow
from idif.methods.msflow.spec import build_msflow
from idif.randomness import Draws
from idif.runs.run import method_context
from tests.helpers.stubs import batches_of

SIZE = 32
ARRAYS = (feature_map("p1", 8, 8, "pooled"), feature_map("p2", 12, 4, "pooled"))
SECTION = {"name": "msflow", "scales": ["p1", "p2"], "blocks": [1, 2], "position_channels": 4}


class PooledFeatures:
    """Six samples of two views; sample 1 lacks its second view."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.present = torch.ones(6, 2, dtype=torch.bool)
        self.present[1, 1] = False
        self.arrays: dict[str, Tensor] = {}
        for array in ARRAYS:
            values = torch.randn(6, 2, *array.shape, generator=generator)
            self.arrays[array.name] = values * self.present[:, :, None, None, None]
        self.arrays[MASKS] = torch.zeros(6, 2, SIZE, SIZE, dtype=torch.bool)

    @property
    def spec(self) -> FeatureSpec:
        encoder = EncoderSpec("pooled", "untrained", "0" * 64, "image", {}, ARRAYS)
        return FeatureSpec((encoder,), SIZE, "float32", stores_images=False)

    @property
    def index(self) -> Index:
        samples = [
            Sample(
                f"cup/S{row:04d}",
                "cup",
                "train",
                tuple(
                    View(slot + 1, f"{row}_{slot}.png", None, "OK") if shown else None
                    for slot, shown in enumerate(present)
                ),
            )
            for row, present in enumerate(self.present.tolist())
        ]
        return Index((1, 2), tuple(samples))

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        assert variants is None
        return batches_of(self.index, self.arrays, order, batch_size)


def make_config(**sections: object) -> Config:
    return Config.model_validate({"method": SECTION, **sections})


def make_model() -> MSFlow:
    """A new model with the same weights each time."""
    torch.manual_seed(0)
    config, source = make_config(), PooledFeatures()
    assert isinstance(config.method, MSFlowConfig)
    method = build_msflow(config.method, method_context(config, source.spec, (1, 2), ["cup"]))
    assert isinstance(method, MSFlow)
    return method


def draws_of(source: PooledFeatures, batch: Batch) -> Draws:
    ids = tuple(source.index.samples[row].sample_id for row in batch.rows.tolist())
    return Draws(0, 0, 0, 0, ids, (1, 2), torch.device("cpu"))
