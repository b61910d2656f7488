"""The config sections of the baselines on pooled arrays."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from idif.methods.section import FittedSection, MethodSection
from idif.settings import Count


class PooledNeighborsConfig(FittedSection):
    """Settings of nearest neighbors of pooled arrays, whose distances are fused."""

    name: Literal["pooled-neighbors"] = "pooled-neighbors"
    arrays: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Arrays that are pooled to one vector each; one is a single-input baseline. None: all features."""
    neighbors: Count = 5
    """Training samples whose mean cosine distance is an array's score."""


class PooledAutoencoderConfig(MethodSection):
    """Settings of an autoencoder of pooled arrays, joined to one vector."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "epochs": 30,
            "batch_size": 32,
            "optimizer": {"name": "adam"},
            "lr": 1e-3,
            "weight_decay": 0.0,
            "schedule": {"name": "constant"},
            "warmup": 0.0,
        },
        "eval": {"batch_size": 32},
    }

    name: Literal["pooled-autoencoder"] = "pooled-autoencoder"
    arrays: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Arrays that are pooled to one vector each. None: all features."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 64)
    """Widths of the layers down to the narrowest; the way up mirrors them."""
