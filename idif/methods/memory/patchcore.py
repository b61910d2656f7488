"""PatchCore (Roth et al., CVPR 2022): distance to the nearest feature in a memory of training features."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.errors import CannotFinish, ConfigError
from idif.methods.memory.config import PatchCoreConfig
from idif.methods.memory.coreset import greedy_coreset
from idif.methods.memory.nearest import (
    distances_to,
    nearest,
    nearest_in_window,
    nearest_with_faiss,
    window_rows,
)
from idif.methods.memory.stacking import Stacking
from idif.methods.protocol import FittedMethod, MethodContext, Needs, Scores
from idif.progress import Progress, silent

EXPORT_BYTES = 2**28
"""Largest memory, in float32, that is written into a graph."""
EXPORT_ROWS = 2**15
"""Most features of one camera in a graph, which compares each position with all of them at once."""


class PatchCore(FittedMethod):
    """Nearest neighbors of each position's features among those of the training views.

    The memory is one tensor [M,D] ordered by bank (a camera, or all views), then by position where it holds
    all features of a bank, then by sample.
    """

    independent_views = True

    vectors: Tensor
    """[M,D], in ``method.storage``."""
    counts: Tensor
    """int64 [K]: vectors of each bank."""
    seen: Tensor
    """int64 [K]: features of training views that each bank was chosen from."""

    def __init__(self, config: PatchCoreConfig, context: MethodContext) -> None:
        super().__init__()
        if config.search == "faiss" and find_spec("faiss") is None:
            raise ConfigError(
                'method.search: faiss is not installed; run `pip install "idif[faiss]"`, or set torch'
            )
        self.config, self.view_numbers = config, context.view_numbers
        self.stacking = Stacking(config, context.features)
        self.needs = Needs(training=self.stacking.names, scoring=self.stacking.names)
        self.banks = len(context.view_numbers) if config.bank == "camera" else 1
        kind = torch.float16 if config.storage == "float16" else torch.float32
        self.register_buffer("vectors", torch.zeros(0, self.stacking.dimensions, dtype=kind))
        self.register_buffer("counts", torch.zeros(self.banks, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(self.banks, dtype=torch.int64))

    def fit(self, batches: Iterable[Batch], seed: int, progress: Progress = silent) -> None:
        """See `FittedMethod.fit`; a coreset is extended by the features farthest from it."""
        fresh: list[list[Tensor]] = [[] for _ in range(self.banks)]
        for batch in batches:
            banks, stacked = self._stacked(batch)
            for bank in range(self.banks):
                if (part := stacked[banks == bank]).numel():
                    fresh[bank].append(part.permute(2, 3, 0, 1).to(self.vectors.dtype))
        merged, old = [], self._split()
        for bank, parts in enumerate(fresh):
            given = torch.cat(parts, dim=2) if parts else None
            fresh[bank] = []
            merged.append(
                old[bank] if given is None else self._merged(bank, old[bank], given, seed, progress)
            )
        self.vectors = torch.cat(merged)
        self.counts = torch.tensor([len(part) for part in merged], device=self.vectors.device)
        if not torch.isfinite(self.vectors).all():
            raise CannotFinish(
                f"method.storage: a feature is not finite as {self.config.storage}; use float32, or "
                "unit_length: true"
            )

    def _merged(self, bank: int, old: Tensor, given: Tensor, seed: int, progress: Progress) -> Tensor:
        """The vectors of a bank after new features [h,w,n,D] were added to it."""
        cells = given.shape[0] * given.shape[1]
        if self.config.share == 1:
            both = torch.cat([old.view(cells, -1, old.shape[1]), given.flatten(0, 1)], dim=1).flatten(0, 1)
            self.seen[bank] = len(both)
            return both
        new = given.flatten(0, 2)
        self.seen[bank] += len(new)
        wanted = max(1, round(self.config.share * int(self.seen[bank]))) - len(old)
        rows = greedy_coreset(
            new, wanted, projection=self.config.projection, seed=seed, known=old, progress=progress
        )
        return torch.cat([old, new[rows]])

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`."""
        mask = batch.view_mask
        banks, stacked = self._stacked(batch)
        size = self.stacking.upsampling.shape[0]
        maps = stacked.new_zeros(*mask.shape, size, size)
        views = stacked.new_zeros(mask.shape)
        if len(banks):
            shown, own = maps[mask], views[mask]
            for bank, vectors in enumerate(self._split()):
                chosen = (banks == bank).nonzero()[:, 0]
                if len(chosen):
                    self._require_fitted(bank, vectors)
                    distances, rows = self._nearest(stacked[chosen], vectors)
                    shown[chosen] = self.stacking.to_image(distances)
                    own[chosen] = self._weighted(stacked[chosen], distances, rows, vectors)
            maps[mask], views[mask] = shown, own
        return Scores(maps={"map": maps}, views=views)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        window = self.config.window
        where = "" if window is None else f", at most {window} positions away"
        return {
            "head": "nearest neighbor",
            "map": f"distance to the nearest training feature of the {self._scope}{where}; "
            f"{', '.join(self.stacking.names)} on {self.stacking.grid} x {self.stacking.grid} positions",
        }

    def export_module(self) -> nn.Module:
        """See `SupportsExport`.

        Raises:
            ConfigError: the memory is too large, or compared within a window.
        """
        if self.config.window is not None:
            raise ConfigError("method.window: a memory with a window cannot be exported; use `idif predict`")
        most = int(self.counts.max())
        if self.vectors.numel() * 4 > EXPORT_BYTES or most > EXPORT_ROWS:
            raise ConfigError(
                f"method.coreset: a memory of {len(self.vectors):,} features is too large for one graph; "
                "fit a smaller coreset, or use `idif predict`"
            )
        return ExportPatchCore(self)

    @property
    def _scope(self) -> str:
        return "camera" if self.config.bank == "camera" else "memory"

    def _stacked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Bank of each of the P present views, int64 [P], and their features float32 [P,D,g,g]."""
        mask = batch.view_mask
        slots = mask.nonzero()[:, 1]
        features = {name: array[mask] for name, array in batch.features(self.stacking.names).items()}
        return slots if self.banks > 1 else torch.zeros_like(slots), self.stacking(features)

    def _split(self) -> tuple[Tensor, ...]:
        """The vectors of each bank, [M,D]."""
        banks: tuple[Tensor, ...] = torch.split(self.vectors, self.counts.tolist())
        return banks

    def _require_fitted(self, bank: int, vectors: Tensor) -> None:
        if not len(vectors):
            raise CannotFinish(
                f"camera {self.view_numbers[bank]}: no training sample has a view of it, so that its views "
                "cannot be scored"
            )

    def _nearest(self, stacked: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Distances float32 and rows int64, both [P,g,g]."""
        if self.config.window is not None:
            side = self.stacking.grid
            return nearest_in_window(
                stacked, vectors.view(side, side, -1, len(stacked[0])), self.config.window
            )
        asked = stacked.permute(0, 2, 3, 1)
        search = nearest_with_faiss if self.config.search == "faiss" else nearest
        distances, rows = search(asked.flatten(0, 2), vectors)
        return distances.view(asked.shape[:3]), rows.view(asked.shape[:3])

    def _weighted(self, stacked: Tensor, distances: Tensor, rows: Tensor, vectors: Tensor) -> Tensor:
        """View scores [P]: the largest distance, weighted by the neighbors in the memory (Eq. 6 and 7).

        The weight is 1 - exp(d) / (sum of exp(d_k)) with the distances d_k of the position to the nearest
        neighbors of its own nearest one in the memory, itself included.
        """
        greatest, place = distances.flatten(1).max(dim=1)
        count = self.config.neighbours
        if count == 1:
            return greatest
        scores = []
        side = self.stacking.grid
        for view, at in enumerate(place.tolist()):
            row = int(rows[view].flatten()[at])
            candidates = self._candidates(at, vectors)
            apart = torch.linalg.vector_norm(vectors[candidates].float() - vectors[row].float(), dim=1)
            near = candidates[apart.topk(min(count, len(candidates)), largest=False).indices]
            query = stacked[view, :, at // side, at % side].expand(len(near), -1)
            others = distances_to(query, vectors, near)
            share = torch.exp(greatest[view] - torch.logsumexp(others, dim=0))
            scores.append((1 - share) * greatest[view])
        return torch.stack(scores)

    def _candidates(self, place: int, vectors: Tensor) -> Tensor:
        """Rows of a bank that a query at a position (row-major) is compared with."""
        if self.config.window is None:
            return torch.arange(len(vectors), device=vectors.device)
        side = self.stacking.grid
        each = len(vectors) // side**2
        return window_rows(place * each, (side, side, each), self.config.window, vectors.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}vectors")
        if given is not None and given.shape[1:] == self.vectors.shape[1:]:
            # the number of vectors is known only after the fit
            self.vectors = self.vectors.new_zeros(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ExportPatchCore(nn.Module):
    """The maps of a `PatchCore` with a small memory."""

    def __init__(self, method: PatchCore) -> None:
        super().__init__()
        self.stacking, self.counts, self.banks = method.stacking, method.counts.tolist(), method.banks
        self.register_buffer("vectors", method.vectors.float())

    vectors: Tensor

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """See `SupportsExport.export_module`."""
        views = view_mask.shape[1]
        banks = torch.split(self.vectors, self.counts)
        maps = []
        for slot in range(views):
            stacked = self.stacking({name: f[:, slot] for name, f in features.items()})
            bank = banks[slot if self.banks > 1 else 0]
            if not len(bank):
                maps.append(self.stacking.to_image(stacked[:, 0] * 0))
                continue
            asked = stacked.permute(0, 2, 3, 1)
            squared = bank.square().sum(1) - 2 * asked @ bank.T
            nearest_one = bank[squared.argmin(dim=-1)]
            maps.append(self.stacking.to_image((asked - nearest_one).square().sum(-1).sqrt()))
        return torch.stack(maps, dim=1).masked_fill(~view_mask[:, :, None, None], 0.0)
