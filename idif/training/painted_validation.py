"""Validation samples that cost no test sample: normal samples, with and without painted defects.

One view of each of a few normal samples, held out of training if there are such, is painted by the corruption
of training (`idif.corruption.synthesis`). The frozen encoders run once, on the painted views alone; all other
features are those of the source. A source without images has no such samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from idif.corruption.procedural import procedural_texture
from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank
from idif.data.batch import Batch, make_batch
from idif.data.features import IMAGES, MASKS, FeatureSource, FeatureSpec
from idif.data.index import Index, Sample, check_rows
from idif.data.spacing import evenly_spaced
from idif.encoders.encode import EncoderSet
from idif.randomness import view_seeds

PAINTED = "painted"
"""Class of painted views."""
MOST_SAMPLES = 16
FEWEST_SAMPLES = 4
SHARE = 8
"""A training of this many times as many samples has all of `MOST_SAMPLES`: validation stays cheap."""
AREA = (0.002, 0.15)
"""Share of a view that a painted defect covers; others are drawn again."""
_ATTEMPTS = 16
_TEXTURES = 16
_EPOCH = -1
"""Epoch of the random numbers: no training has it."""


@dataclass(frozen=True)
class PaintedSource:
    """A `FeatureSource` in memory: normal samples, then the same with painted defects."""

    spec: FeatureSpec
    index: Index
    data: Batch
    held_out: bool
    """Whether the normal samples are held out of training."""

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """See `FeatureSource.batches`; there are no variants.

        Raises:
            IndexError: a row is not in the index.
        """
        rows = check_rows(self.index, order)
        for start in range(0, len(rows), batch_size):
            yield self.data.take(torch.tensor(rows[start : start + batch_size], dtype=torch.int64))


def can_paint(spec: FeatureSpec) -> bool:
    """Whether defects can be painted: the source has images, and all its features are theirs."""
    return IMAGES in spec.arrays and not spec.inputs and bool(spec.image_size)


def choose_rows(kept: Sequence[int], held_out: Sequence[int]) -> list[int]:
    """Rows of normal samples to validate on: evenly spaced, of those held out if there are any."""
    return evenly_spaced(held_out or kept, min(MOST_SAMPLES, max(FEWEST_SAMPLES, len(kept) // SHARE)))


@torch.inference_mode()
def paint(
    source: FeatureSource,
    kept: Sequence[int],
    held_out: Sequence[int],
    encoders: EncoderSet,
    device: torch.device,
    seed: int,
) -> PaintedSource | None:
    """Paint defects on some normal samples; None where the source has no images to paint on.

    Args:
        source: training samples.
        kept: rows that are trained on.
        held_out: rows that are not.
        encoders: the frozen encoders of the source; moved to ``device`` and back to the CPU.
        device: device that encodes.
        seed: determines the defects, with the samples' ids.
    """
    numbers = source.index.view_numbers
    rows = choose_rows(kept, held_out)
    one_reader = all(encoder.family.read == encoders.image_reader for encoder in encoders.encoders)
    if not can_paint(source.spec) or not numbers or not rows or not one_reader:
        return None
    parts = [batch.to(torch.device("cpu")) for batch in source.batches(rows, 1)]
    clean = {name: torch.cat([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    samples = [source.index.samples[row] for row in rows]
    slots = [_painted_slot(sample, seed) for sample in samples]
    size = clean[IMAGES].shape[-1]
    textures = TextureBank(
        torch.from_numpy(np.stack([procedural_texture(n, size) for n in range(_TEXTURES)])), "procedural", ""
    )
    drawn = [
        _painted_view(clean[IMAGES][place, slot], sample.sample_id, numbers[slot], seed, textures)
        for place, (sample, slot) in enumerate(zip(samples, slots, strict=True))
    ]
    views, masks = (torch.stack(each) for each in zip(*drawn, strict=True))
    single = replace(encoders, variants=())
    single.to(device)
    shown = torch.ones(1, 1, dtype=torch.bool, device=device)
    # one view at a time: little memory on any device
    encoded = [
        single.encode(_inputs(view, mask, device), {"image": shown})
        for view, mask in zip(views, masks, strict=True)
    ]
    single.to(torch.device("cpu"))
    arrays = {}
    for name, values in clean.items():
        painted = values.clone()
        for place, slot in enumerate(slots):
            painted[place, slot] = encoded[place][name][0, 0].to(values.dtype).cpu()
        arrays[name] = torch.cat([values, painted])
    index = Index(numbers, (*samples, *map(_as_painted, samples, slots)))
    data = make_batch(index, range(len(index)), arrays)
    return PaintedSource(source.spec, index, data, bool(held_out))


def _inputs(view: Tensor, mask: Tensor, device: torch.device) -> dict[str, Tensor]:
    """A view uint8 [3,S,S] and its mask bool [S,S] as a decoded sample of one view."""
    return {IMAGES: view[None, None].to(device), MASKS: mask[None, None].to(device)}


def _painted_slot(sample: Sample, seed: int) -> int:
    """The view of a sample that is painted: one of those present, by its id."""
    present = [slot for slot, here in enumerate(sample.present) if here]
    number = int(view_seeds(seed, _EPOCH, [sample.sample_id], (0,))[0, 0])
    return present[number % len(present)]


def _painted_view(
    image: Tensor, sample_id: str, number: int, seed: int, textures: TextureBank
) -> tuple[Tensor, Tensor]:
    """The view uint8 [3,S,S] with a defect, and its mask bool [S,S]; drawn until its size fits `AREA`."""
    best: tuple[Tensor, Tensor] | None = None
    for attempt in range(_ATTEMPTS):
        seeds = view_seeds(seed, _EPOCH - attempt, [sample_id], (number,))
        painted, mask = corrupt(image[None, None], seeds, textures)
        found = (painted[0, 0] * 255).round().to(torch.uint8), mask[0, 0]
        share = float(mask.float().mean())
        if AREA[0] <= share <= AREA[1]:
            return found
        if share > 0 and (best is None or bool(mask.sum() < best[1].sum())):
            best = found
    return best if best is not None else found


def _as_painted(sample: Sample, slot: int) -> Sample:
    views = [
        view if at != slot or view is None else replace(view, anomaly_class=PAINTED)
        for at, view in enumerate(sample.views)
    ]
    return replace(sample, sample_id=f"{sample.sample_id} {PAINTED}", views=tuple(views))
