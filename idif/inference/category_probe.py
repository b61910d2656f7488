"""The category of photographs, told by a linear probe on pooled features of the frozen encoders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idif.data.arrays import ArraySpec
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample
from idif.data.spacing import evenly_spaced
from idif.encoders.encode import EncoderSet
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import decode_part
from idif.progress import Progress, silent

VIEWS_EACH = 200
"""Photographs of a category that the probe learns from and is tried on: enough to tell kinds of parts."""
HELD_OUT = 5
"""One of so many samples is held out."""
NUMBERS = 256
"""Largest number of means of one array; an array with fewer channels gives means of parts of the image."""
GRIDS = (8, 4, 2)
"""Parts along a side of the image that means are taken of, the most that `NUMBERS` allows."""
WEIGHT_DECAY = 1e-3
ITERATIONS = 100
_BATCH = 8


@dataclass(frozen=True)
class CategoryProbe:
    """Logistic regression of a view's pooled features; a part has the mean of its views' logarithms."""

    categories: tuple[str, ...]
    weight: Tensor
    """float32 [K,D], for K categories."""
    bias: Tensor
    """float32 [K]."""
    held_out: int
    """Normal training samples that it was tried on and did not learn from."""
    accuracy: float | None
    """Share of them whose category it tells; None if there are none."""

    @classmethod
    def fit(cls, source: FeatureSource, progress: Progress = silent) -> Self:
        """Learn from normal samples, at most about `VIEWS_EACH` photographs of each category.

        Args:
            source: training samples of at least two categories, with features of every view.
            progress: called with the samples read and their number.
        """
        categories, views = normal_categories(source), len(source.index.view_numbers)
        learned, tried = _chosen_rows(source, -(-VIEWS_EACH // views))
        vectors, present, numbers = [], [], []
        for batch in source.batches([*learned, *tried], _BATCH):
            vectors.append(pool_features(batch.arrays, source.spec).cpu())
            present.append(batch.view_mask.cpu())
            numbers += [categories.index(name) for name in batch.categories]
            progress(len(numbers), len(learned) + len(tried), "pooling stored features")
        x, shown, y = torch.cat(vectors), torch.cat(present), torch.tensor(numbers)
        count = len(learned)
        seen = shown[:count]
        weight, bias = _regression(x[:count][seen], y[:count, None].expand(seen.shape)[seen], len(categories))
        probe = cls(categories, weight, bias, len(tried), None)
        if not tried:
            return probe
        told = probe.probabilities(x[count:], shown[count:]).argmax(dim=1)
        return replace(probe, accuracy=float((told == y[count:]).float().mean()))

    def probabilities(self, vectors: Tensor, view_mask: Tensor) -> Tensor:
        """float32 [B,K], each row with the sum 1, of samples with at least one view.

        Args:
            vectors: float32 [B,V,D], from `pool_features`.
            view_mask: bool [B,V].
        """
        logits = F.linear(vectors, self.weight.to(vectors.device), self.bias.to(vectors.device))
        shown = view_mask.to(vectors.device)[..., None]
        total = torch.where(shown, logits.log_softmax(dim=-1), 0.0).sum(dim=1)
        return (total / shown.sum(dim=1).clamp(min=1)).softmax(dim=-1)

    def sentence(self) -> str:
        """How well it does, for terminals and pages."""
        if self.accuracy is None:
            return "the linear probe of categories could not be tried: there are too few training samples"
        share = f"{100 * self.accuracy:.1f} % of {self.held_out} held-out normals"
        return f"a linear probe on the features tells the category of {share}"

    @torch.inference_mode()
    def recognize(
        self,
        parts: Sequence[PredictInput],
        encoders: EncoderSet,
        device: torch.device,
        progress: Progress = silent,
    ) -> Iterator[PredictInput]:
        """The parts with their most probable category and all probabilities; as given if unreadable."""
        features, done = encoders.to(device).spec("float32"), 0
        for start in range(0, len(parts), _BATCH):
            group = parts[start : start + _BATCH]
            decoded = [decode_part(part, encoders) for part in group]
            stacked = {
                name: torch.from_numpy(np.stack([one.arrays[name] for one in decoded])).to(device)
                for name in decoded[0].arrays
            }
            mask = torch.from_numpy(np.stack([one.present for one in decoded]))
            pooled = pool_features(encoders.encode(stacked, {"image": mask}), features)
            each = self.probabilities(pooled, mask).cpu()
            for part, shown, row in zip(group, mask.any(dim=1).tolist(), each, strict=True):
                yield self._recognized(part, row) if shown else part
            done += len(group)
            progress(done, len(parts), "recognizing categories")

    def _recognized(self, part: PredictInput, row: Tensor) -> PredictInput:
        order = row.argsort(descending=True).tolist()
        probabilities = {self.categories[place]: float(row[place]) for place in order}
        return replace(part, category=self.categories[order[0]], probabilities=probabilities)


def normal_categories(source: FeatureSource) -> tuple[str, ...]:
    """The categories of which there are normal samples with a view, sorted."""
    return tuple(sorted({s.category for s in source.index.samples if _is_usable(s)}))


def pooled_arrays(features: FeatureSpec) -> tuple[ArraySpec, ...]:
    """The arrays that a probe pools: those of every view with channels."""
    return tuple(a for a in features.features.values() if a.per_view and "channel" in a.own_axes)


def pool_features(arrays: Mapping[str, Tensor], features: FeatureSpec) -> Tensor:
    """Means and standard deviations of each array's channels over positions: float32 [B,V,D].

    Args:
        arrays: {name: [B,V,...]}.
        features: their specification.
    """
    pooled = []
    for array in pooled_arrays(features):
        values = arrays[array.name].float().movedim(2 + array.own_axes.index("channel"), 2)
        flat = values.flatten(3)
        channels, axes = array.shape[array.own_axes.index("channel")], array.own_axes
        means = flat.mean(dim=3)
        if axes == ("channel", "y", "x"):
            side = min(array.shape[1:])
            grid = next((g for g in GRIDS if channels * g**2 <= NUMBERS and g <= side), 1)
            means = F.adaptive_avg_pool2d(values.flatten(0, 1), grid).view(*values.shape[:2], -1)
        pooled += [means, flat.std(dim=3, correction=0)]
    return torch.cat(pooled, dim=2)


def _is_usable(sample: Sample) -> bool:
    return not sample.label and any(sample.present)


def _chosen_rows(source: FeatureSource, most: int) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows to try, evenly spaced over the normal samples of each category."""
    by_category: dict[str, list[int]] = {}
    for row, sample in enumerate(source.index.samples):
        if _is_usable(sample):
            by_category.setdefault(sample.category, []).append(row)
    learned: list[int] = []
    tried: list[int] = []
    for members in by_category.values():
        for place, row in enumerate(evenly_spaced(members, most)):
            (tried if place % HELD_OUT == HELD_OUT // 2 else learned).append(row)
    return learned, tried


def _regression(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [K,D] and bias [K] of a logistic regression of x [N,D] with classes y [N]."""
    mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)
    given = (x - mean) * scale
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(given, weight, bias), y) + WEIGHT_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach() * scale
    return scaled, bias.detach() - scaled @ mean
