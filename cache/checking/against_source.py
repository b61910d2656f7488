"""Checks a store against its sources: the files of the data, and the encoders of its features."""

import contextlib
import random
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cache.building.encode_shards import count_inputs, sample_content, stack_decoded
from cache.checking.verify_report import Problem, VerifyReport
from cache.format.encoder_weights import files_of, load_stored, set_of_encoders
from cache.format.index_diff import content_differences, index_differences
from cache.format.layout import GroupName
from cache.format.manifest import GroupManifest, RootManifest, SampleContent, sorted_groups
from cache.format.object_store import StorePath
from cache.reading.store import FeatureStore
from idif.data.batch import Batch, input_presence
from idif.data.features import IMAGES, MASKS
from idif.data.index import Index, Sample
from idif.encoders.encode import EncoderSet
from idif.encoders.variants import VARIANTS
from idif.errors import DatasetError, StoreDamaged, StoreError, WeightsError
from idif.prefetch import prefetch_map
from idif.progress import Progress, Tally, silent

DEEP_ROWS = 8
"""Number of rows per group that a deep verification encodes again."""
DEEP_TOLERANCE = 2e-2
"""Largest accepted difference in a deep verification, relative to an array's largest feature: float16 rounds
by 5e-4 and processors differ in summation order; other weights or pixels give differences of order one."""


def compare_data(
    root: Path,
    index: Index,
    groups: dict[GroupName, GroupManifest],
    report: VerifyReport,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Compare every sample, view, label and file of the data with the store's groups.

    Args:
        progress: called with the number of views and per-sample inputs whose files were read.
    """
    data = sorted_groups(index)
    read = Tally(progress, sum(map(count_inputs, index.samples)))
    for group, manifest in groups.items():
        stored = manifest.plan.index
        row_of = {sample.sample_id: row for row, sample in enumerate(stored.samples)}

        def add(sample_id: str, what: str, group: GroupName = group, row_of: dict[str, int] = row_of) -> None:
            rows = (row_of[sample_id],) if sample_id in row_of else ()
            report.problems.append(Problem(f"data of {group}", rows, what, str(group)))

        present = data.get(group, Index(index.view_numbers, ()))
        for difference in index_differences(stored, present):
            add(difference.sample_id, str(difference))
        aligned = present.with_views(stored.view_numbers)
        common = [sample for sample in aligned.samples if sample.sample_id in row_of]
        hashes = prefetch_map(partial(_content_or_error, root), common, workers=workers, depth=4 * workers)
        with contextlib.closing(hashes):
            for sample, now in zip(common, hashes, strict=True):
                read.add(count_inputs(sample), str(group))
                if isinstance(now, DatasetError):
                    add(sample.sample_id, str(now))
                    continue
                report.views_compared += count_inputs(sample)
                for difference in content_differences(
                    sample, manifest.content[row_of[sample.sample_id]], now
                ):
                    add(difference.sample_id, str(difference))


def _content_or_error(root: Path, sample: Sample) -> SampleContent | DatasetError:
    try:
        return sample_content(root, sample)
    except DatasetError as error:
        return error


def encode_again(
    store: StorePath,
    manifest: RootManifest,
    groups: dict[GroupName, GroupManifest],
    data: tuple[Path, Index] | None,
    report: VerifyReport,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Compare a few rows of each group with the stored weights' output for the same inputs.

    Encoders of images run on the stored images; other inputs are read from the data.

    Args:
        data: the data's root and index; without them encoders of other inputs are skipped and listed in the
            report.
        progress: called with the number of rows.
    """
    spec, loaded = manifest.spec, []
    for file, encoder in files_of(spec):
        try:
            loaded.append(load_stored(store / file, encoder))
        except WeightsError as error:
            report.problems.append(Problem(file, (), str(error)))
            return
    reader = set_of_encoders(spec, tuple(loaded)).image_reader
    whole = spec.stores_images and not any(VARIANTS[name].shifted for name in spec.variants)
    stored = [e for e in loaded if whole and e.family.read == reader]
    if data is None:
        report.encoders_left_out += tuple(e.name for e in loaded if e not in stored)
    root, samples = (None, {}) if data is None else (data[0], {s.sample_id: s for s in data[1].samples})
    usable = stored if root is None else loaded
    if not usable:
        return
    encoders = set_of_encoders(spec, tuple(usable))
    sizes = {group: len(manifest.plan.index) for group, manifest in groups.items()}
    encoded = Tally(progress, sum(min(DEEP_ROWS, size) for size in sizes.values()))
    for group in groups:
        try:
            source = FeatureStore.open(store, [group.category], group.split)
        except StoreError:
            continue  # the damage is already in the report
        chosen = random.Random(f"{seed}/{group}").sample(
            range(len(source.index)), min(DEEP_ROWS, len(source.index))
        )
        variants = range(max(1, len(spec.variants)))
        for row in sorted(chosen):
            encoded.add(1, str(group))
            try:
                batch = source.read([row] * len(variants), variants)
                if root is None or len(stored) == len(loaded):
                    decoded = {name: batch.arrays[name][:1] for name in (IMAGES, MASKS)}
                elif (sample := samples.get(source.index.samples[row].sample_id)) is not None:
                    decoded = stack_decoded([encoders.decode(root, sample)], torch.device("cpu"))
                else:
                    continue  # the missing sample is already in the report
            except (StoreDamaged, DatasetError):
                continue
            report.rows_encoded += 1
            for name, gap in _gaps(encoders, source, batch, decoded).items():
                if not gap <= DEEP_TOLERANCE:
                    what = f"features differ from the encoder's by {gap:.1e} of the largest"
                    shard = row // source.groups[0].manifest.plan.shard_rows
                    report.problems.append(Problem(f"{group}/{name}", (row,), what, str(group), shard))


def _gaps(
    encoders: EncoderSet, source: FeatureStore, variants: Batch, decoded: dict[str, Tensor]
) -> dict[str, float]:
    """Largest difference of each array of one row, relative to its largest feature.

    Args:
        variants: the row as one batch per variant.
    """
    row = int(variants.rows[0])
    again = encoders.encode(decoded, input_presence(source.index, [row], source.spec.inputs))
    gaps = {}
    for name, array in source.spec.features.items():
        if name in again:
            stored = variants.arrays[name].float()
            new = again[name][0].float() if array.has_variants else again[name].float()
            largest = new.abs().max().clamp_min(1e-6)
            gaps[name] = float((stored[: len(new)] - new).abs().max() / largest)
    return gaps
