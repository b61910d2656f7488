"""Late fusion: merges the predictions of several runs on the same samples into one predictions file.

The runs' scores are brought to one scale by the mean m and the spread s of each run's scores of training
normals (`idif.evaluation.normal_scores`), which its predictions file
records; the evaluated split is not used for it. With weights w, normalized to sum 1:

    sample and view scores:  sum over runs of w (score - m) / s
    maps:                    sum over runs of w/s map, divided by the sum of w/s

The second equals the first up to a factor and an offset common to all pixels of a category, which do not
affect rankings. It preserves the maps' range: float16 is most precise near 0, and fusing a run with itself
changes nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from idif.errors import ConfigError, RunError
from idif.evaluation.normal_scores import NormalScores, Scale
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.progress import Progress, silent

BLOCK = 8
"""Number of samples fused at once."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Member:
    """One of the runs to fuse."""

    name: str
    weight: float
    """Weight above 0; the weights of all members sum to 1."""
    predictions: Predictions
    normals: dict[str, NormalScores]
    """Scores of training normals, by category."""
    rows: npt.NDArray[np.int64]
    """[N]: for each sample of the first member, its row in this run."""
    slots: npt.NDArray[np.int64]
    """[V]: for each view of the first member, its slot in this run."""


def open_members(folders: Sequence[Path], weights: Sequence[float]) -> list[Member]:
    """Open the runs' ``predictions.h5`` and match their samples and views, by id and camera number.

    Args:
        folders: at least two; the result has the order of the first.
        weights: one per run; empty means equal weights.

    Raises:
        ConfigError: the weights do not fit.
        RunError: a file is missing or damaged, the runs differ in samples, views, labels or masks, or a run
            did not record its training normals' scores.
    """
    if len(folders) < 2:
        raise ConfigError(f"expected at least two runs to fuse, got {len(folders)}")
    shares = _shares(weights, len(folders))
    opened = [Predictions.open(folder / "predictions.h5") for folder in folders]
    first, members = opened[0], []
    if not len(first):
        raise RunError(f"{first.path}: expected samples to fuse, found none")
    for folder, weight, found in zip(folders, shares, opened, strict=True):
        rows, slots = _match(first, found)
        members.append(Member(run_name(folder), weight, found, _normals(found), rows, slots))
    return members


def run_name(folder: Path) -> str:
    """Name of a run in the fusion: its folder's name, with the category for RUN/<category>."""
    whole = folder.resolve()
    return whole.name if (whole / "config.yaml").is_file() else f"{whole.parent.name}/{whole.name}"


def fuse(
    members: Sequence[Member], path: Path, *, derived: Sequence[Path] = (), progress: Progress = silent
) -> dict[str, Any]:
    """Write the fused predictions to ``path`` (`idif.evaluation.predictions`).

    Args:
        members: result of `open_members`.
        path: path of the fused file.
        derived: files to remove when the new file replaces an old one.
        progress: called with the samples done.

    Returns:
        The protocol recorded in the file: runs, weights and scales.

    Raises:
        RunError: masks or the sizes of the maps differ, or a file is damaged.
    """
    first = members[0].predictions
    stated = protocol(members)
    size = next(first.iter_maps([0]))[1].shape[-1] if first.has_maps else 0
    with PredictionsWriter(
        path,
        first.view_numbers,
        size,
        first.has_maps,
        stated,
        derived,
        sample_classes=any(first.sample_class),
        source_paths=first.source_path is not None,
    ) as writer:
        done = 0
        for name in dict.fromkeys(first.category):
            rows = first.rows(name)
            views, samples = fused_scores(members, name, rows)
            for part, maps, masks in _fused_maps(members, name, rows):
                writer.append(
                    [first.sample(int(row)) for row in rows[part]], views[part], samples[part], maps, masks
                )
                done += len(rows[part])
                progress(done, len(first), f"fusing {name}")
    return stated


def fused_scores(
    members: Sequence[Member], category: str, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """View scores float32 [N,V] and sample scores float32 [N] of the first member's ``rows``."""

    def mean(scores: Callable[[Member], Array], scale: Callable[[NormalScores], Scale | None]) -> Array:
        parts = []
        for member in members:
            normal = scale(member.normals[category]) or Scale(0.0, 1.0)  # no views: nothing to scale
            parts.append(member.weight * (scores(member).astype(np.float64) - normal.mean) / normal.spread)
        return _sum(parts)

    views = mean(lambda m: m.predictions.view_scores[m.rows[rows]][:, m.slots], lambda n: n.view)
    samples = mean(lambda m: m.predictions.sample_scores[m.rows[rows]], lambda n: n.sample)
    return views.astype(np.float32), samples.astype(np.float32)


def map_weights(members: Sequence[Member], category: str) -> list[float]:
    """Weight of each run's maps; they sum to 1."""
    scales = [member.normals[category].pixel for member in members]
    each = [m.weight / scale.spread for m, scale in zip(members, scales, strict=True) if scale is not None]
    assert len(each) == len(members), "a run with maps records the scale of their pixels"
    return [weight / math.fsum(each) for weight in each]


def protocol(members: Sequence[Member]) -> dict[str, Any]:
    """Description of the fusion, as recorded in the predictions file, metrics.json and reports."""
    own = [member.predictions.protocol for member in members]
    left_out = ("normals", "calibrations", "false_positive", "validated", "split", "models")
    epochs = dict.fromkeys(str(stated["epoch"]) for stated in own if "epoch" in stated)
    return {
        "head": ", ".join(str(stated.get("head")) for stated in own),
        "map": "mean of the runs' maps, weighted by weight / spread of the run's training normals",
        "view_score": "weighted mean of the runs' view scores, standardised on training normals",
        "sample_score": "weighted mean of the runs' sample scores, standardised on training normals",
        **({"epoch": ", ".join(epochs)} if epochs else {}),
        **({"draws_maps": False} if all(stated.get("draws_maps") is False for stated in own) else {}),
        "pixels": own[0].get("pixels", ""),
        "split": own[0].get("split", "test"),
        **{key: own[0][key] for key in ("cameras", "imported_from") if key in own[0]},
        "fused": [
            {
                "run": member.name,
                "weight": member.weight,
                "normals": {name: asdict(found) for name, found in member.normals.items()},
                "protocol": {key: value for key, value in stated.items() if key not in left_out},
            }
            for member, stated in zip(members, own, strict=True)
        ],
    }


def caveats(members: Sequence[Member]) -> list[str]:
    """Caveats for readers of the fused scores, about their scales."""
    found = []
    held_out = [all(normal.held_out for normal in member.normals.values()) for member in members]
    for member, held in zip(members, held_out, strict=True):
        normals = member.normals.values()
        if not held:
            unlike = ", others from samples held out of training" if any(held_out) else ""
            found.append(f"the scale of {member.name} comes from samples that it was trained on{unlike}")
        if anomalous := sum(normal.anomalous for normal in normals):
            total = sum(normal.samples for normal in normals)
            found.append(
                f"{anomalous} of the {total} training samples behind the scale of {member.name} are "
                "labelled anomalous"
            )
    return found


def _shares(weights: Sequence[float], runs: int) -> list[float]:
    given = list(weights) or [1.0] * runs
    if len(given) != runs:
        raise ConfigError(f"--weights: expected one weight for each of {runs} runs, got {len(given)}")
    for weight in given:
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"--weights: expected numbers above 0, got {weight:g}")
    return [weight / math.fsum(given) for weight in given]


def _normals(found: Predictions) -> dict[str, NormalScores]:
    if "fused" in found.protocol:
        raise RunError(f"{found.path}: is itself a fusion; fuse its runs directly, with --weights")
    recorded = found.protocol.get("normals", {})
    for category in dict.fromkeys(found.category):
        if category not in recorded:
            raise RunError(
                f"{found.path}: expected scores of training normals of {category}, found none; run `idif "
                f"eval {found.path.parent} --set eval.record_normal_scores=true`"
            )
    return {name: NormalScores.from_json(scores) for name, scores in recorded.items()}


def _match(first: Predictions, other: Predictions) -> tuple[Array, Array]:
    """Rows [N] and slots [V] of ``other`` in the order of ``first``."""
    a, b = first.path.parent, other.path.parent
    splits = [p.protocol.get("split", "test") for p in (first, other)]
    if splits[0] != splits[1]:
        raise RunError(f"{b}: expected predictions of the {splits[0]} split, as {a} has; found {splits[1]}")
    if set(first.view_numbers) != set(other.view_numbers):
        raise RunError(
            f"{b}: expected views {_listed(first.view_numbers)}, as {a} has; found "
            f"{_listed(other.view_numbers)}"
        )
    if first.has_maps != other.has_maps:
        bare = b if first.has_maps else a
        raise RunError(f"{bare}: expected anomaly maps, as the other runs have; found none (--no-maps)")
    ours, theirs = (
        {key: row for row, key in enumerate(zip(p.category, p.sample_id, strict=True))}
        for p in (first, other)
    )
    for known, asked, folder in ((theirs, ours, b), (ours, theirs, a)):
        lacking = [key for key in asked if key not in known]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise RunError(f"{folder}: has no sample {lacking[0][1]}{more}, which another run has")
    rows = np.array([theirs[key] for key in ours], np.int64)
    slots = np.array([other.view_numbers.index(number) for number in first.view_numbers], np.int64)
    for what, one, two in (
        ("presence", first.present, other.present),
        ("label", first.labels, other.labels),
        ("mask", first.has_mask, other.has_mask),
    ):
        differing = np.argwhere(one != two[rows][:, slots])
        if len(differing):
            row, slot = differing[0]
            raise RunError(
                f"{b}: expected the {what} of {first.sample_id[row]}, view {first.view_numbers[slot]}, to be "
                f"as in {a}: {_word(what, one[row, slot])}; found: {_word(what, not one[row, slot])}"
            )
    return rows, slots


def _word(what: str, value: bool) -> str:
    words = {"presence": ("absent", "present"), "label": ("normal", "anomalous"), "mask": ("none", "given")}
    return words[what][int(value)]


def _fused_maps(
    members: Sequence[Member], category: str, rows: Array
) -> Iterator[tuple[slice, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """Blocks of the first member's ``rows``, with fused maps and masks [B,V,H,W]; [0] without maps."""
    parts = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
    if not members[0].predictions.has_maps:
        yield from ((part, np.zeros(0), np.zeros(0, np.bool_)) for part in parts)
        return
    weights = map_weights(members, category)
    streams = [member.predictions.iter_maps(member.rows[rows], BLOCK) for member in members]
    for part, *blocks in zip(parts, *streams, strict=True):
        maps = [heat[:, member.slots] for member, (_, heat, _) in zip(members, blocks, strict=True)]
        masks = [mask[:, member.slots] for member, (_, _, mask) in zip(members, blocks, strict=True)]
        for member, heat, mask in zip(members, maps, masks, strict=True):
            _require_same_picture(members[0], member, rows[part], (maps[0], masks[0]), (heat, mask))
        fused = _sum([w * heat.astype(np.float64) for w, heat in zip(weights, maps, strict=True)])
        yield part, fused, masks[0]


def _require_same_picture(
    first: Member, other: Member, rows: Array, ours: tuple[Array, Array], theirs: tuple[Array, Array]
) -> None:
    """Raise `RunError` if maps [B,V,H,W] differ in size, or masks [B,V,H,W] differ."""
    a, b = first.predictions.path.parent, other.predictions.path.parent
    sizes = [" x ".join(map(str, maps.shape[2:])) for maps, _ in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise RunError(f"{b}: expected maps of {sizes[0]} pixels, as {a} has; found {sizes[1]}")
    differing = np.argwhere((ours[1] != theirs[1]).any(axis=(2, 3)))
    if len(differing):
        row, slot = differing[0]
        name, view = first.predictions.sample_id[rows[row]], first.predictions.view_numbers[slot]
        raise RunError(f"{b}: expected the mask of {name}, view {view}, to be that of {a}, found another")


def _sum(parts: Sequence[Array]) -> Array:
    """The sum of arrays of one shape, bitwise independent of their order."""
    total: Array = np.sort(np.stack(parts), axis=0).sum(axis=0)
    return total


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
