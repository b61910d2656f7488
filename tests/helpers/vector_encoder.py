"""Encoder families for tests: one of a signal that a sample has once, one with signed feature maps.

Tests install them with ``monkeypatch.setitem(ENCODERS, "vector", fixed(VECTOR))``, or with `installed`
where a fixture of wider scope needs them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from idif.data.arrays import ArraySpec, feature_map
from idif.data.index import Index, Sample, Split
from idif.encoders.family import EncoderFamily, fixed
from idif.encoders.frozen import ENCODERS
from idif.encoders.preparation import SquareImage
from idif.errors import DatasetError

STEPS = 12
"""Numbers in a signal's file."""


class _VectorModule(nn.Module):
    """float32 [N,12] -> {vector: [N,6], tokens: [N,4,3]}."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(STEPS, 6)

    def forward(self, signals: Tensor) -> dict[str, Tensor]:
        return {"vector": self.linear(signals), "tokens": signals.abs().view(-1, 4, 3)}


class _SignedMapModule(nn.Module):
    """float32 [N,3,S,S] -> {contrast: [N,4,S/16,S/16]}, of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16, stride=16)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"contrast": self.conv(images)}


def _read_signal(path: Path, size: int) -> npt.NDArray[np.float32]:
    try:
        signal: npt.NDArray[np.float32] = np.load(path).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: signal cannot be read ({error})") from None
    if signal.shape != (STEPS,):
        raise DatasetError(f"{path}: expected {STEPS} numbers, got shape {signal.shape}")
    return signal


VECTOR = EncoderFamily(
    build=_VectorModule,
    arrays=lambda size: (
        ArraySpec("vector", ("channel",), (6,), "float32", "vector", signed=True),
        ArraySpec("tokens", ("token", "channel"), (4, 3), "float32", "vector"),
    ),
    preparation={"steps": STEPS},
    read=_read_signal,
    prepare=lambda signals: signals.float(),
    stride=1,
    key_names="the test's",
    pretrained=None,
    absent_shape=lambda size: (STEPS,),
    input="signal",
)

SIGNED_MAP = EncoderFamily(
    build=_SignedMapModule,
    arrays=lambda size: (feature_map("contrast", 4, size // 16, "signed-map", signed=True),),
    preparation={"divisor": 128, "offset": 1},
    read=SquareImage(),
    absent_shape=lambda size: (3, size, size),
    prepare=lambda images: (images.float() if images.dtype == torch.uint8 else images * 255) / 128 - 1,
    stride=16,
    key_names="the test's",
    pretrained=None,
)

FAMILIES = {"vector": fixed(VECTOR), "signed-map": fixed(SIGNED_MAP)}


@contextmanager
def installed() -> Iterator[None]:
    """Both families under the names ``vector`` and ``signed-map`` while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, family in FAMILIES.items():
            patch.setitem(ENCODERS, name, family)
        yield


def add_signals(root: Path, index: Index, seed: int = 0) -> Index:
    """Write a signal file for every sample but the second of each split; returns the index that names them.

    Samples get a class of their own: ``burn`` for the third of each test split, else ``OK``.
    """
    rng = np.random.default_rng(seed)
    (root / "signals").mkdir(parents=True, exist_ok=True)
    counts: dict[tuple[str, str], int] = {}
    samples: list[Sample] = []
    for row, sample in enumerate(index.samples):
        number = counts.setdefault((sample.category, sample.split), 0)
        counts[sample.category, sample.split] += 1
        path = None if number == 1 else f"signals/{row:04d}.npy"
        if path is not None:
            np.save(root / path, rng.normal(size=STEPS).astype(np.float32))
        own = "burn" if sample.split == "test" and number == 2 else "OK"
        samples.append(replace(sample, inputs={"signal": path}, sample_class=own))
    return replace(index, samples=tuple(samples))


def signal_index(root: Path, train: int = 5, test: int = 4, category: str = "weld") -> Index:
    """Samples with a signal and no views at all, written below ``root``."""
    counts: tuple[tuple[Split, int], ...] = (("train", train), ("test", test))
    samples = [
        Sample(f"{category}/{split}/S{number:04d}", category, split, ())
        for split, count in counts
        for number in range(count)
    ]
    return add_signals(root, Index((), tuple(samples)))
