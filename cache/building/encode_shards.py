"""Computes the values of shards: decodes files ahead in threads, encodes in the caller's thread."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from cache.format.layout import scale_name, stored_type
from cache.format.manifest import GroupPlan, SampleContent, ViewContent
from cache.format.quantize import quantize
from cache.format.shard_codec import Array, ShardValues
from idif.data.arrays import ArraySpec
from idif.data.batch import input_presence
from idif.data.decode import DECODED_AHEAD
from idif.data.features import MASKS, FeatureSpec
from idif.data.images import HashingReader
from idif.data.index import Sample
from idif.encoders.encode import EncoderSet
from idif.errors import CannotFinish, ConfigError, DatasetError
from idif.fingerprint import sha256_of_file
from idif.paths import resolve_inside
from idif.prefetch import prefetch_map

NOTHING: Mapping[Path, str] = MappingProxyType({})


@dataclass(frozen=True)
class Job:
    """One shard to encode."""

    plan: GroupPlan
    shard: int


@dataclass(frozen=True)
class MadeShard:
    """The values of one shard and the hashes of its source files."""

    job: Job
    values: ShardValues
    content: tuple[SampleContent, ...]


def count_inputs(sample: Sample) -> int:
    """Number of present views and per-sample inputs of a sample, the unit of progress."""
    return sum(sample.present) + sum(path is not None for path in sample.inputs.values())


def sample_content(root: Path, sample: Sample, known: Mapping[Path, str] = NOTHING) -> SampleContent:
    """Hashes of one sample's files.

    Args:
        known: {file: hash} of those that need not be read.

    Raises:
        DatasetError: a file cannot be read.
    """

    def hashed(name: str | None) -> str | None:
        return None if name is None else _hash(root, name, known)

    views = (
        None if view is None else ViewContent(_hash(root, view.image, known), hashed(view.mask))
        for view in sample.views
    )
    return SampleContent(tuple(views), {name: hashed(path) for name, path in sample.inputs.items()})


def _hash(root: Path, name: str, known: Mapping[Path, str]) -> str:
    path = resolve_inside(root, name)
    if path in known:
        return known[path]
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DatasetError(f"{root / name}: cannot be read ({error.strerror or error})") from None


def make_shards(
    root: Path,
    jobs: Sequence[Job],
    encoders: EncoderSet,
    spec: FeatureSpec,
    *,
    workers: int,
    device: torch.device | None = None,
) -> Generator[MadeShard | int]:
    """The shards of ``jobs``, in order, and between them the number of inputs encoded since the last yield.

    Decoding runs ahead across shard boundaries; encoding does not, so a shard's values depend only on its
    own rows, the plan's batch size and the machine.

    Args:
        device: device of the encoders; the CPU when None.

    Raises:
        DatasetError: a file cannot be read. CannotFinish: a feature is not finite.
    """
    device = device or torch.device("cpu")
    encoders = encoders.to(device)
    wanted = [job.plan.index.samples[row] for job in jobs for row in range(*job.plan.bounds[job.shard])]

    def decode(sample: Sample) -> tuple[dict[str, Array], SampleContent]:
        read = HashingReader()
        # hashed as decoded: a file that is replaced meanwhile must not lend its hash to the pixels of another
        return encoders.decode(root, sample, read), sample_content(root, sample, read.sha256)

    batch = max((job.plan.batch_size for job in jobs), default=1)
    decoded = prefetch_map(decode, wanted, workers=workers, depth=DECODED_AHEAD * batch)
    try:
        for job in jobs:
            index, (start, stop) = job.plan.index, job.plan.bounds[job.shard]
            layouts = job.plan.array_layouts(spec)
            truth = job.plan.truth_arrays(spec, start, stop)
            arrays = truth | {
                a.name: np.empty((stop - start, *a.row_shape), a.dtype)
                for a in layouts
                if a.name not in truth
            }
            content: list[SampleContent] = []
            for first in range(start, stop, job.plan.batch_size):
                rows = range(first, min(first + job.plan.batch_size, stop))
                samples, hashes = zip(*islice(decoded, len(rows)), strict=True)
                content.extend(hashes)
                encoded = encoders.encode(
                    stack_decoded(samples, device), input_presence(index, rows, spec.inputs)
                )
                part = slice(first - start, first - start + len(rows))
                for name, values in encoded.items():
                    for stored, kept in _as_stored(job.plan, spec, first, name, values).items():
                        torch.from_numpy(arrays[stored][part]).copy_(kept)
                yield sum(count_inputs(index.samples[row]) for row in rows)
            yield MadeShard(job, ShardValues(job.shard, start, stop, arrays), tuple(content))
    finally:
        decoded.close()


def stack_decoded(samples: Sequence[Mapping[str, Array]], device: torch.device) -> dict[str, Tensor]:
    """Stack decoded samples to {name: [B,...]}, on ``device`` except for masks, which encoders do not use."""
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}
    return {name: x if name == MASKS else x.to(device) for name, x in stacked.items()}


def _as_stored(
    plan: GroupPlan, spec: FeatureSpec, start: int, name: str, values: Tensor
) -> dict[str, Tensor]:
    """An array as stored, with its scales if it is quantized."""
    array = spec.features.get(name)
    if array is None or not array.dtype.startswith("float"):
        return {name: values}
    kept = stored_type(array, spec)
    converted = values if kept == "float32" else values.half()
    check_finite(plan, start, array, converted)
    if kept in ("float16", "float32"):
        return {name: converted}
    if kept == "uint8":
        check_not_negative(plan, start, array, converted)
    levels, scales = quantize(values, array)
    return {name: levels, scale_name(name): scales}


def check_finite(plan: GroupPlan, start: int, array: ArraySpec, values: Tensor) -> None:
    """Raise on the first feature that is not finite in its storage type (the maximum of float16 is 65,504).

    Args:
        start: row of ``values[0]`` in the group.
        values: [B,...] of ``array``, on any device.

    Raises:
        CannotFinish: names row, sample, view and array.
    """
    if torch.isfinite(torch.stack(torch.aminmax(values))).all():  # both propagate NaN
        return
    where = _first(plan, start, array, ~torch.isfinite(values))
    dtype = str(values.dtype).removeprefix("torch.")
    raise CannotFinish(
        f"{where}: features are not finite as {dtype}; the build stopped before this shard "
        f"(are these the right weights? float32 storage holds values above 65,504)"
    )


def check_not_negative(plan: GroupPlan, start: int, array: ArraySpec, values: Tensor) -> None:
    """Refuse negative features in an array that its encoder declares unsigned; arguments as `check_finite`.

    Raises:
        ConfigError: names row, sample, view and array.
    """
    if values.min() >= 0:
        return
    where = _first(plan, start, array, values < 0)
    raise ConfigError(f"{where}: uint8 storage expects features of at least 0, got less; use float16")


def _first(plan: GroupPlan, start: int, array: ArraySpec, bad: Tensor) -> str:
    """Description of the position of the first True in [B,...], for messages."""
    place = bad.nonzero()[0].tolist()
    row = start + place[0]
    view = ""
    if array.per_view:
        view = f"view {plan.index.view_numbers[place[1 + array.axes.index('view')]]}, "
    return f"{plan.group}: row {row} (sample {plan.index.samples[row].sample_id}), {view}{array.name}"
