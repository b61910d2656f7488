"""Makes the values of shards from images: decoding ahead in threads, encoding in the caller's."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache.format.layout import array_layouts, scale_name
from cache.format.manifest import GroupPlan, SampleContent, ViewContent
from cache.format.quantize import quantize
from cache.format.sealed_files import hash_file
from cache.format.shard_codec import Array, ShardValues
from idif.data.decode import DECODED_AHEAD, decode_sample
from idif.data.features import FeatureSpec
from idif.data.index import Sample, truth
from idif.encoders.encode import encode_views
from idif.encoders.frozen import FrozenEncoder
from idif.errors import CannotFinish, ConfigError, DatasetError
from idif.paths import resolve_inside
from idif.prefetch import prefetch_map


@dataclass(frozen=True)
class Job:
    """One shard to be made."""

    plan: GroupPlan
    shard: int


@dataclass(frozen=True)
class MadeShard:
    """The values of one shard and what they were made from."""

    job: Job
    values: ShardValues
    content: tuple[SampleContent, ...]


def sample_content(root: Path, sample: Sample) -> SampleContent:
    """Hashes of one sample's files.

    Raises:
        DatasetError: a file cannot be read.
    """

    def hashed(name: str) -> str:
        try:
            return hash_file(resolve_inside(root, name))
        except OSError as error:
            raise DatasetError(f"{root / name}: cannot be read ({error.strerror or error})") from None

    return tuple(
        None
        if view is None
        else ViewContent(hashed(view.image), None if view.mask is None else hashed(view.mask))
        for view in sample.views
    )


def make_shards(
    root: Path, jobs: Sequence[Job], encoder: FrozenEncoder, spec: FeatureSpec, *, workers: int
) -> Generator[MadeShard | int]:
    """The shards of ``jobs``, in order, and between them the number of views encoded since the last yield.

    Decoding runs ahead across the border of shards; encoding never does, so a shard's values depend on
    its own rows, the plan's batch size and the machine alone.

    Raises:
        DatasetError: a file cannot be read. CannotFinish: a feature is not finite.
    """
    device = next(encoder.module.parameters()).device
    wanted = [job.plan.index.samples[row] for job in jobs for row in range(*job.plan.bounds[job.shard])]

    def decode(sample: Sample) -> tuple[Array, Array, SampleContent]:
        images, masks = decode_sample(root, sample, spec.image_size)
        return images, masks, sample_content(root, sample)

    batch = max((job.plan.batch_size for job in jobs), default=1)
    decoded = prefetch_map(decode, wanted, workers=workers, depth=DECODED_AHEAD * batch)
    try:
        for job in jobs:
            start, stop = job.plan.bounds[job.shard]
            layouts = array_layouts(spec, len(job.plan.index.view_numbers))
            arrays = {a.name: np.empty((stop - start, *a.row_shape), a.dtype) for a in layouts}
            present, labels = truth(job.plan.index, range(start, stop))
            arrays["view_mask"][:], arrays["labels"][:] = present.numpy(), labels.numpy()
            content: list[SampleContent] = []
            for first in range(start, stop, job.plan.batch_size):
                rows = range(first, min(first + job.plan.batch_size, stop))
                images, masks, hashes = zip(*islice(decoded, len(rows)), strict=True)
                here = slice(first - start, first - start + len(rows))
                arrays["images"][here], arrays["masks"][here] = np.stack(images), np.stack(masks)
                content.extend(hashes)
                on_device = torch.from_numpy(arrays["images"][here]).to(device)
                for layer, x in encode_views(encoder, on_device, present[here]).items():
                    half = x.half()
                    check_finite(job.plan, first, layer, half)
                    if spec.storage == "uint8":
                        check_not_negative(job.plan, first, layer, half)
                        levels, scales = quantize(x)
                        kept = {layer: levels, scale_name(layer): scales}
                    else:
                        kept = {layer: half}
                    for name, values in kept.items():
                        torch.from_numpy(arrays[name][here]).copy_(values)
                yield int(present[here].sum())
            yield MadeShard(job, ShardValues(job.shard, start, stop, arrays), tuple(content))
    finally:
        decoded.close()


def check_finite(plan: GroupPlan, start: int, layer: str, values: Tensor) -> None:
    """Stop at the first feature that is not finite as float16 (which ends at 65,504).

    Args:
        start: row of ``values[0]`` in the group.
        values: float16 [B,V,C,h,w] of one layer, on any device.

    Raises:
        CannotFinish: names row, sample, view and layer.
    """
    if torch.isfinite(torch.stack(torch.aminmax(values))).all():  # a NaN is passed on by both
        return
    where = _first(plan, start, layer, ~torch.isfinite(values))
    raise CannotFinish(
        f"{where}: features are not finite as float16; the build stopped before this shard "
        f"(are these the right weights?)"
    )


def check_not_negative(plan: GroupPlan, start: int, layer: str, values: Tensor) -> None:
    """Refuse features that levels counted from zero cannot hold; arguments as `check_finite`.

    Raises:
        ConfigError: names row, sample, view and layer.
    """
    if values.min() >= 0:
        return
    where = _first(plan, start, layer, values < 0)
    raise ConfigError(f"{where}: uint8 storage expects features of at least 0, got less; use float16")


def _first(plan: GroupPlan, start: int, layer: str, bad: Tensor) -> str:
    """Where the first True of [B,V,C,h,w] lies, in words."""
    row, slot = (int(i) for i in bad.flatten(2).any(dim=2).nonzero()[0])
    sample, number = plan.index.samples[start + row], plan.index.view_numbers[slot]
    return f"{plan.group}: row {start + row} (sample {sample.sample_id}), view {number}, {layer}"
