"""A source of runs with several inputs, whose arrays are random numbers in memory; no encoder, no files.

Named and shaped as those of weld runs: video, audio and sensor of the sample, and two arrays of its stills.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from idif.data.arrays import VIEW, ArraySpec
from idif.data.batch import Batch, make_batch
from idif.data.features import EncoderSpec, FeatureSpec
from idif.data.index import Index, Sample, Split, View

INPUTS = ("video", "audio", "sensor")
STILLS = 2


def run_features(
    video: tuple[int, int] = (4, 8),
    audio: tuple[int, int] = (3, 6),
    sensor: tuple[int, int] = (10, 3),
    still: tuple[int, int] = (5, 8),
    text: int = 4,
) -> FeatureSpec:
    """The specification for sizes (steps or tokens, channels)."""
    tokens = [
        ArraySpec(name, (VIEW, "token", "channel"), still, "float32", "stills", signed=True)
        for name in ("img_b9", "img_b20")
    ]
    mean = ArraySpec("img_b31_mean", (VIEW, "channel"), still[1:], "float32", "stills", signed=True)
    series = {"video": video, "audio": audio, "sensor": sensor}
    encoders = [
        _encoder(name, name, ArraySpec(name, ("time", "channel"), shape, "float32", name, signed=True))
        for name, shape in series.items()
    ]
    sentence = ArraySpec("text", ("channel",), (text,), "float32", "text", signed=True)
    encoders += [_encoder("stills", "image", *tokens, mean), _encoder("text", "none", sentence)]
    return FeatureSpec(tuple(encoders), 32, "float32", stores_images=False)


def _encoder(name: str, given: str, *arrays: ArraySpec) -> EncoderSpec:
    return EncoderSpec(name, "untrained", "0" * 64, given, {}, arrays)


def run_index(counts: Sequence[tuple[Split, int]], lacking: Mapping[int, tuple[str, ...]]) -> Index:
    """Samples of each split, every second of ``val`` and ``test`` with a defect: ``burn`` or ``crack``.

    Args:
        counts: splits and their numbers of samples.
        lacking: row -> what the sample lacks: inputs, ``still 1``, or ``stills``.
    """
    samples: list[Sample] = []
    for split, count in counts:
        for number in range(count):
            row = len(samples)
            lost = lacking.get(row, ())
            own = "OK" if split == "train" or number % 2 == 0 else ("burn", "crack")[number % 4 // 2]
            views = tuple(
                None
                if "stills" in lost or f"still {place}" in lost
                else View(place, f"stills/{row}-{place}.png", None, "OK")
                for place in range(1, STILLS + 1)
            )
            inputs = {name: None if name in lost else f"{name}/{row}" for name in INPUTS}
            samples.append(Sample(f"weld/{split}/{row:03d}", "weld", split, views, inputs, own))
    return Index(tuple(range(1, STILLS + 1)), tuple(samples))


class RunArrays:
    """Random arrays; in samples with a defect those of ``shows_in`` are shifted, by 2 (burn) or 1 (crack)."""

    def __init__(
        self,
        counts: Sequence[tuple[Split, int]] = (("train", 6),),
        lacking: Mapping[int, tuple[str, ...]] | None = None,
        spec: FeatureSpec | None = None,
        shows_in: Sequence[str] = (),
    ) -> None:
        self.spec = run_features() if spec is None else spec
        self.index = run_index(counts, lacking or {})
        self._arrays = [self._row(row, sample, shows_in) for row, sample in enumerate(self.index.samples)]

    def _row(self, row: int, sample: Sample, shows_in: Sequence[str]) -> dict[str, Tensor]:
        arrays = {}
        inputs = {encoder.name: encoder.input for encoder in self.spec.encoders}
        shift = {"burn": 2.0, "crack": 1.0}.get(sample.sample_class or "", 0.0)
        for number, (name, array) in enumerate(self.spec.features.items()):
            rng = np.random.default_rng((row if name != "text" else 0, number))
            values = rng.normal(size=array.row_shape(STILLS, 0)) + (shift if name in shows_in else 0)
            given = inputs[array.origin]
            if array.per_view:
                values[~np.array(sample.present)] = 0
            elif given != "none" and sample.inputs[given] is None:
                values[:] = 0
            arrays[name] = torch.from_numpy(values.astype(np.float32))
        return arrays

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """See `idif.data.features.FeatureSource.batches`."""
        assert variants is None
        for start in range(0, len(order), batch_size):
            rows = list(order[start : start + batch_size])
            arrays = {n: torch.stack([self._arrays[row][n] for row in rows]) for n in self.spec.features}
            yield make_batch(self.index, rows, arrays, self.spec.inputs)
