"""Checks a store against where it came from: the data's files, and the encoder that made its features."""

import contextlib
import random
from functools import partial
from pathlib import Path

from cache.building.encode_shards import sample_content
from cache.checking.verify_report import Problem, VerifyReport
from cache.format.encoder_weights import load_teacher
from cache.format.index_diff import content_differences, index_differences
from cache.format.layout import TEACHER, GroupName
from cache.format.manifest import GroupManifest, RootManifest, SampleContent, sorted_groups
from cache.format.object_store import StorePath
from cache.reading.store import FeatureStore
from idif.data.index import Index, Sample
from idif.encoders.encode import encode_views
from idif.errors import DatasetError, StoreDamaged, StoreError, WeightsError
from idif.prefetch import prefetch_map

DEEP_ROWS = 8
"""Rows of each group that a deep verification encodes again."""
DEEP_TOLERANCE = 2e-2
"""Largest difference of a deep verification, relative to a layer's largest feature: float16 keeps 5e-4, and
other processors add up in another order; other weights or other pixels differ by the order of one."""


def compare_data(
    root: Path, index: Index, groups: dict[GroupName, GroupManifest], report: VerifyReport, workers: int
) -> None:
    """Every sample, view, label and file of the data against the fingerprints of the groups the store has."""
    data = sorted_groups(index)
    for group, manifest in groups.items():
        stored = manifest.plan.index
        row_of = {sample.sample_id: row for row, sample in enumerate(stored.samples)}

        def add(sample_id: str, what: str, group: GroupName = group, row_of: dict[str, int] = row_of) -> None:
            rows = (row_of[sample_id],) if sample_id in row_of else ()
            report.problems.append(Problem(f"data of {group}", rows, what, str(group)))

        theirs = data.get(group, Index(index.view_numbers, ()))
        for difference in index_differences(stored, theirs):
            add(difference.sample_id, str(difference))
        common = [sample for sample in theirs.samples if sample.sample_id in row_of]
        hashes = prefetch_map(partial(_content_or_error, root), common, workers=workers, depth=4 * workers)
        with contextlib.closing(hashes):
            for sample, now in zip(common, hashes, strict=True):
                if isinstance(now, DatasetError):
                    add(sample.sample_id, str(now))
                    continue
                report.views_compared += sum(sample.present)
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
    root: RootManifest,
    groups: dict[GroupName, GroupManifest],
    report: VerifyReport,
    seed: int,
) -> None:
    """Compare a few rows of each group with what the stored weights make of the stored images."""
    try:
        encoder = load_teacher(store / TEACHER, root.spec.encoder)
    except WeightsError as error:
        report.problems.append(Problem(TEACHER, (), str(error)))
        return
    if encoder.sha256 != root.spec.weights_sha256:
        report.problems.append(Problem(TEACHER, (), "not the weights the features came from"))
        return
    for group in groups:
        try:
            source = FeatureStore.open(store, [group.category], group.split)
        except StoreError:
            continue  # its damage is listed already
        chosen = random.Random(f"{seed}/{group}").sample(
            range(len(source.index)), min(DEEP_ROWS, len(source.index))
        )
        for row in sorted(chosen):
            try:
                batch = source.read([row])
            except StoreDamaged:
                continue
            again = encode_views(encoder, batch.images, batch.view_mask)
            report.rows_encoded += 1
            for name, stored in batch.features.items():
                gap = float(
                    (stored.float() - again[name]).abs().max() / again[name].abs().max().clamp_min(1e-6)
                )
                if not gap <= DEEP_TOLERANCE:
                    what = f"features differ from the encoder's by {gap:.1e} of the largest"
                    shard = row // source.groups[0].manifest.plan.shard_rows
                    report.problems.append(Problem(f"{group}/{name}", (row,), what, str(group), shard))
