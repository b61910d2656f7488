"""Makes the values of shards from images: decoding ahead in threads, encoding in the caller's."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from cache.files import hash_file
from cache.layout import array_layouts
from cache.manifest import GroupPlan, SampleContent, ViewContent
from cache.writer import Array, ShardValues, check_finite
from idif.ahead import ahead
from idif.datasets.index import Sample
from idif.encoders import FrozenEncoder
from idif.errors import DatasetError
from idif.features import FeatureSpec
from idif.live import DECODED_AHEAD, decode_sample, encode_views, truth


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
            return hash_file(root / name)
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
    decoded = ahead(decode, wanted, workers=workers, depth=DECODED_AHEAD * batch)
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
                    check_finite(job.plan.group, job.plan.index, first, layer, half)
                    arrays[layer][here] = half.cpu().numpy()
                yield int(present[here].sum())
            yield MadeShard(job, ShardValues(job.shard, start, stop, arrays), tuple(content))
    finally:
        decoded.close()
