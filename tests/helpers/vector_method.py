"""A method for tests that is nothing like IDIF: one vector of a sample, no images, no maps, SGD.

`installed_method` puts it, its encoder and its reader where a config can name them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.data.index import Index, Split
from idif.datasets.config import DataConfig
from idif.datasets.readers import READERS, Reader
from idif.methods.catalog import METHODS
from idif.methods.idif.config import IDIFConfig
from idif.methods.protocol import MethodContext, MethodSpec, Needs, Scores, Stage, TrainedMethod
from idif.methods.section import MethodSection
from idif.randomness import Draws, stream, uniform
from tests.helpers.vector_encoder import installed, signal_index


class VectorConfig(MethodSection):
    """A linear autoencoder of the stored vector."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "optimizer": {"name": "sgd", "momentum": 0.9},
            "schedule": {"name": "constant"},
            "lr": 0.05,
            "warmup": 0.0,
        },
        "eval": {"score": "method"},
    }

    name: Literal["vector"] = "vector"
    width: int = 2
    noise: float = 0.1


class VectorAutoencoder(TrainedMethod):
    """Reconstructs ``vector`` [B,6] through ``width`` numbers; the error is the sample's score."""

    draws_maps = False

    def __init__(self, config: VectorConfig, context: MethodContext) -> None:
        super().__init__()
        self.needs = Needs(training=("vector",), scoring=("vector",))
        size = context.features.arrays["vector"].shape[0]
        self.noise = config.noise
        self.encode, self.decode = nn.Linear(size, config.width), nn.Linear(config.width, size)

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        vector = batch.arrays["vector"].float()
        noise = uniform(draws.sample_seeds(), stream("vector noise"), vector.shape[1]) - 0.5
        error = self._error(vector + self.noise * noise, vector)
        present = batch.present["signal"]
        return {"loss": (error * present).sum() / present.sum().clamp(min=1)}

    def score(self, batch: Batch) -> Scores:
        vector = batch.arrays["vector"].float()
        return Scores(samples=self._error(vector, vector) * batch.present["signal"])

    def describe(self) -> dict[str, str]:
        return {"head": "vector", "sample_score": "mean squared error of the reconstructed vector"}

    def _error(self, given: Tensor, wanted: Tensor) -> Tensor:
        rebuilt: Tensor = self.decode(self.encode(given))
        return (rebuilt - wanted).square().mean(dim=1)


VECTOR_SPEC = MethodSpec(
    build=VectorAutoencoder,
    stages=lambda config: (Stage("vector", config),),
    smallest=VectorConfig,
)


class ConfigWithVector(Config):
    """The config as it would be with this method among its union."""

    method: IDIFConfig | VectorConfig = Field(IDIFConfig(), discriminator="name")  # type: ignore[assignment]


def _read_signals(data: DataConfig, split: Split | None) -> Index:
    assert data.root is not None
    index = signal_index(data.root, train=12, test=8)
    chosen = index.rows(lambda sample: split in (None, sample.split))
    return index.take(chosen)


@contextmanager
def installed_method() -> Iterator[None]:
    """The method, its encoder and its reader, known to configs and commands while the block runs."""
    torch.set_num_threads(1)
    with installed(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "vector", VECTOR_SPEC)
        patch.setitem(READERS, "signals", Reader(_read_signals, lambda data: ["weld"]))
        patch.setattr("idif.config.loader.Config", ConfigWithVector)
        yield
