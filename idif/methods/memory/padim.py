"""PaDiM (Defard et al., ICPR 2021): Mahalanobis distance to the distribution of each position's features."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.errors import CannotFinish, ConfigError
from idif.methods.memory.config import PaDiMConfig
from idif.methods.memory.stacking import Stacking
from idif.methods.protocol import FittedMethod, MethodContext, Needs, Scores
from idif.progress import Progress, silent
from idif.randomness import numpy_rng

EXPORT_BYTES = 2**30
"""Largest model that is written into a graph."""


class PaDiM(FittedMethod):
    """One Gaussian distribution for each camera and position, from moments that are summed in float64.

    L positions, row-major; d dimensions. ``scatter`` is the sum of squared deviations from the mean: [V,L,d]
    of each dimension, or the lower triangle of each position's matrix, [V,L,d*(d+1)/2].
    """

    independent_views = True

    dimensions: Tensor
    """int64 [d]: the dimensions that are used, ascending."""
    counts: Tensor
    """int64 [V]: training views of each camera."""
    mean: Tensor
    """float32 [V,L,d]."""
    scatter: Tensor
    """float32, see the class."""

    def __init__(self, config: PaDiMConfig, context: MethodContext) -> None:
        super().__init__()
        self.config, self.view_numbers = config, context.view_numbers
        self.stacking = Stacking(config, context.features)
        self.needs = Needs(training=self.stacking.names, scoring=self.stacking.names)
        d = min(config.dimensions or self.stacking.dimensions, self.stacking.dimensions)
        shape = (len(context.view_numbers), self.stacking.grid**2)
        self.register_buffer("dimensions", torch.arange(d))
        self.register_buffer("counts", torch.zeros(shape[0], dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(*shape, d))
        packed = d if config.covariance == "diagonal" else d * (d + 1) // 2
        self.register_buffer("scatter", torch.zeros(*shape, packed))
        self.whitening: list[Tensor | None] = [None] * shape[0]
        """One entry per camera, once computed: the inverse standard deviations [L,d], or the inverse of the
        covariance's Cholesky factor [L,d,d]."""

    def fit(self, batches: Iterable[Batch], seed: int, progress: Progress = silent) -> None:
        """See `FittedMethod.fit`; the dimensions are drawn in the first fit."""
        device, total = self.mean.device, self.stacking.dimensions
        if not self.counts.any():
            drawn = numpy_rng("padim dimensions", seed).permutation(total)[: len(self.dimensions)]
            self.dimensions = torch.from_numpy(drawn).sort().values.to(device)
        counts = self.counts.tolist()
        means, scatters = list(self.mean.double()), [self._unpacked(part.double()) for part in self.scatter]
        for batch in batches:
            slots, vectors = self._vectors(batch)
            for slot in range(len(counts)):
                new = vectors[slots == slot].double()
                if len(new):
                    counts[slot] = _add(counts[slot], means[slot], scatters[slot], new)
        self.counts = torch.tensor(counts, device=device)
        self.mean = torch.stack(means).float()
        self.scatter = torch.stack([self._packed(part).float() for part in scatters])
        self.whitening = [None] * len(counts)
        for slot, count in enumerate(counts):
            if count:
                self._whitening(slot)

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`."""
        mask, size = batch.view_mask, self.stacking.upsampling.shape[0]
        slots, vectors = self._vectors(batch)
        maps = self.mean.new_zeros(*mask.shape, size, size)
        if len(slots):
            shown = maps[mask]
            for slot in sorted(set(slots.tolist())):
                chosen = (slots == slot).nonzero()[:, 0]
                distances = mahalanobis(vectors[chosen], self.mean[slot], self._whitening(slot))
                side = self.stacking.grid
                shown[chosen] = self.stacking.to_image(distances.view(-1, side, side))
            maps[mask] = shown
        return Scores(maps={"map": maps})

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        side = self.stacking.grid
        return {
            "head": "Gaussian",
            "map": f"Mahalanobis distance, {self.config.covariance} covariance of {len(self.dimensions)} "
            f"dimensions of {', '.join(self.stacking.names)} on {side} x {side} positions of each camera",
        }

    def export_module(self) -> nn.Module:
        """See `SupportsExport`.

        Raises:
            ConfigError: the model is too large.
        """
        whitening = torch.stack(
            [
                self._whitening(slot) if count else torch.zeros_like(self._unpacked(self.scatter[slot]))
                for slot, count in enumerate(self.counts.tolist())
            ]
        )
        if whitening.numel() * 4 > EXPORT_BYTES:
            raise ConfigError(
                f"method.covariance: {whitening.numel() * 4 / 1e9:.1f} GB are too large for one graph; fit "
                "fewer dimensions or a diagonal covariance, or use `idif predict`"
            )
        return ExportPaDiM(self, whitening)

    def select(self, stacked: Tensor) -> Tensor:
        """The used dimensions of features float32 [P,D,g,g], as [P,L,d]."""
        return stacked.flatten(2)[:, self.dimensions].transpose(1, 2)

    def _vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Slot of each of the P present views, int64 [P], and their features float32 [P,L,d]."""
        mask = batch.view_mask
        features = {name: array[mask] for name, array in batch.features(self.stacking.names).items()}
        return mask.nonzero()[:, 1], self.select(self.stacking(features))

    def _whitening(self, slot: int) -> Tensor:
        """``whitening`` of a camera, on the method's device."""
        count = int(self.counts[slot])
        if not count:
            raise CannotFinish(
                f"camera {self.view_numbers[slot]}: no training sample has a view of it, so that its views "
                "cannot be scored"
            )
        known = self.whitening[slot]
        if known is None or known.device != self.mean.device:
            moments = self._unpacked(self.scatter[slot].cpu().double())
            known = whitening_of(moments, count, self.config.ridge, self.config.shrinkage)
            self.whitening[slot] = known = known.float().to(self.mean.device)
        return known

    def _unpacked(self, scatter: Tensor) -> Tensor:
        if self.config.covariance == "diagonal":
            return scatter
        d = len(self.dimensions)
        rows, columns = torch.tril_indices(d, d, device=scatter.device)
        full = scatter.new_zeros(len(scatter), d, d)
        full[:, rows, columns] = scatter
        full[:, columns, rows] = scatter
        return full

    def _packed(self, scatter: Tensor) -> Tensor:
        if self.config.covariance == "diagonal":
            return scatter
        rows, columns = torch.tril_indices(*scatter.shape[1:], device=scatter.device)
        return scatter[:, rows, columns]

    def _load_from_state_dict(self, state_dict: dict[str, Any], *rest: Any) -> None:
        self.whitening = [None] * len(self.whitening)
        super()._load_from_state_dict(state_dict, *rest)


def _add(count: int, mean: Tensor, scatter: Tensor, new: Tensor) -> int:
    """Add observations float64 [m,L,d] to the moments, in place (Chan et al.); returns the new count."""
    more = len(new)
    center = new.mean(dim=0)
    deviation = (new - center).transpose(0, 1)
    shift = center - mean
    factor = count * more / (count + more)
    if scatter.ndim == 2:
        scatter += deviation.square().sum(dim=1) + shift.square() * factor
    else:
        scatter.baddbmm_(deviation.transpose(1, 2), deviation)
        scatter.baddbmm_(shift[:, :, None] * factor, shift[:, None])
    mean += shift * (more / (count + more))
    return count + more


def whitening_of(scatter: Tensor, count: int, ridge: float, shrinkage: float) -> Tensor:
    """W with |W (x - mean)| the Mahalanobis distance, float64: [L,d], or lower triangular [L,d,d].

    Args:
        scatter: float64 [L,d] or [L,d,d], sum of squared deviations.
        count: observations.
        ridge: added to all variances.
        shrinkage: share of the covariance that is replaced by its mean variance in all dimensions.

    Raises:
        CannotFinish: a covariance is not positive definite.
    """
    covariance = scatter / max(1, count - 1)
    diagonal = covariance if covariance.ndim == 2 else covariance.diagonal(dim1=1, dim2=2)
    added = shrinkage * diagonal.mean(dim=1, keepdim=True) + ridge
    singular = CannotFinish(
        f"method.ridge: {count} training views do not determine the covariance; set ridge or shrinkage above "
        "0, or use a diagonal covariance"
    )
    if covariance.ndim == 2:
        variance = (1 - shrinkage) * covariance + added
        if not bool((variance > 0).all()):
            raise singular
        return variance.rsqrt()
    identity = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    lower, info = torch.linalg.cholesky_ex((1 - shrinkage) * covariance + added[:, :, None] * identity)
    if bool(info.any()):
        raise singular
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    return inverse


def mahalanobis(vectors: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distances [...,L] of vectors [...,L,d] to means [L,d]; ``whitening`` as `whitening_of` returns it."""
    centered = vectors - mean
    whitened: Tensor = (
        centered * whitening if whitening.ndim == 2 else torch.einsum("lij,...lj->...li", whitening, centered)
    )
    return whitened.square().sum(-1).sqrt()


class ExportPaDiM(nn.Module):
    """The maps of a `PaDiM`."""

    dimensions: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, method: PaDiM, whitening: Tensor) -> None:
        super().__init__()
        self.stacking = method.stacking
        self.register_buffer("dimensions", method.dimensions)
        self.register_buffer("mean", method.mean)
        self.register_buffer("whitening", whitening)

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """See `SupportsExport.export_module`."""
        side = self.stacking.grid
        maps = []
        for slot in range(view_mask.shape[1]):
            stacked = self.stacking({name: f[:, slot] for name, f in features.items()})
            vectors = stacked.flatten(2)[:, self.dimensions].transpose(1, 2)
            distances = mahalanobis(vectors, self.mean[slot], self.whitening[slot])
            maps.append(self.stacking.to_image(distances.view(-1, side, side)))
        return torch.stack(maps, dim=1).masked_fill(~view_mask[:, :, None, None], 0.0)
