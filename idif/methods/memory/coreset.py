"""Greedy coreset: vectors of a set such that every other one is near one of them (k-center)."""

import torch
from torch import Tensor

from idif.methods.memory.nearest import nearest
from idif.progress import Progress, silent
from idif.randomness import numpy_rng

REPORT_EVERY = 256
"""Chosen vectors between two reports of progress."""


def greedy_coreset(
    vectors: Tensor,
    count: int,
    *,
    projection: int,
    seed: int,
    known: Tensor | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Choose vectors one after another, each the farthest from those chosen before.

    Distances are those of a random projection, which changes them little and makes them cheap.

    Args:
        vectors: [N,D], any floating type.
        count: how many to choose; all if there are not more.
        projection: dimensions of the projection; none if it is not below D.
        seed: seed of the projection and of the first vector.
        known: [M,D] vectors chosen before, which stay; the first choice is then the farthest from them.
        progress: called with the vectors chosen and ``count``.

    Returns:
        Rows int64 [min(count, N)], ascending.
    """
    total, dimensions = vectors.shape
    if count >= total:
        return torch.arange(total, device=vectors.device)
    rng = numpy_rng("coreset", seed)
    matrix = None
    if projection < dimensions:
        drawn = rng.standard_normal((dimensions, projection)) / projection**0.5
        matrix = torch.from_numpy(drawn).to(vectors.device, torch.float32)
    points = _projected(vectors, matrix)
    norms = points.square().sum(1)
    if known is None or not len(known):
        farthest = torch.full_like(norms, torch.inf)
        choice = torch.tensor(int(rng.integers(total)), device=vectors.device)
    else:
        farthest = nearest(points, _projected(known, matrix))[0].square()
        choice = farthest.argmax()
    chosen = torch.empty(count, dtype=torch.int64, device=vectors.device)
    distances = torch.empty_like(norms)
    for number in range(count):
        chosen[number] = choice
        torch.addmv(norms, points, points[choice], alpha=-2, out=distances)
        distances += norms[choice]
        torch.minimum(farthest, distances, out=farthest)
        farthest[choice] = -torch.inf
        choice = farthest.argmax()
        if number % REPORT_EVERY == 0 or number == count - 1:
            progress(number + 1, count, "choosing the coreset")
    return chosen.sort().values


def _projected(vectors: Tensor, matrix: Tensor | None) -> Tensor:
    if matrix is None:
        return vectors.float()
    return torch.cat([part.float() @ matrix for part in torch.split(vectors, 2**16)])
