"""Exact nearest neighbors by squared Euclidean distance, in bounded memory on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**24
"""Distances, and values of the bank, that are in memory at once."""
SAMPLED = 1024
"""Vectors of a bank whose mean is taken as its center."""


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest vector of a bank for each query.

    Candidates are compared by matrix products of vectors from which a mean is subtracted, since products of
    long vectors round by more than a small distance; the distance to the nearest one is then computed from
    the difference of the vectors.

    Args:
        queries: float32 [Q,D].
        bank: [M,D], any floating type.

    Returns:
        Distances float32 [Q] and rows of the bank int64 [Q].
    """
    best = queries.new_full((len(queries),), torch.inf)
    rows = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    height, center = BLOCK // queries.shape[1], _center(bank)
    centered = queries - center
    for start in range(0, len(bank), height):
        part = bank[start : start + height].float() - center
        norms, width = part.square().sum(1), max(1, BLOCK // len(part))
        for first in range(0, len(queries), width):
            some = slice(first, first + width)
            found, at = torch.addmm(norms, centered[some], part.T, alpha=-2).min(dim=1)
            better = found < best[some]
            best[some] = torch.where(better, found, best[some])
            rows[some] = torch.where(better, at + start, rows[some])
    return distances_to(queries, bank, rows), rows


def nearest_with_faiss(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest`, by an exact index of faiss on the CPU, which holds the bank as float32.

    Of vectors at equal distance it may name another.
    """
    import faiss

    center = _center(bank)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add((bank.float() - center).cpu().numpy())
    _, found = index.search((queries - center).cpu().numpy(), 1)
    rows = torch.from_numpy(found[:, 0]).to(queries.device)
    return distances_to(queries, bank, rows), rows


def _center(bank: Tensor) -> Tensor:
    """A vector float32 [D] amid a bank [M,D]: the mean of some of it."""
    step = max(1, len(bank) // SAMPLED)
    return bank[::step].float().mean(dim=0)


def distances_to(queries: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Distances float32 [Q] of queries [Q,D] to one row of the bank each, int64 [Q]."""
    count = BLOCK // queries.shape[1]
    parts = zip(torch.split(queries, count), torch.split(rows, count), strict=True)
    return torch.cat([torch.linalg.vector_norm(some - bank[at].float(), dim=1) for some, at in parts])


def nearest_in_window(queries: Tensor, bank: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The nearest vector of a bank for each query, among those at most ``window`` positions away.

    Args:
        queries: float32 [P,D,h,w].
        bank: [h,w,n,D], any floating type.
        window: largest distance along each axis, in positions.

    Returns:
        Distances float32 [P,h,w] and rows int64 [P,h,w] of the bank as [h*w*n,D].
    """
    count, size, height, width = queries.shape
    each, reach = bank.shape[2], min(window, width - 1)
    asked, center = queries.permute(2, 3, 0, 1).contiguous(), _center(bank.flatten(0, 2))
    centered = asked - center
    best = queries.new_full((height, width, count), torch.inf)
    rows = torch.zeros(height, width, count, dtype=torch.int64, device=queries.device)
    # The windows of a line's columns are overlapping slices of one tensor, so one product compares them all.
    # Columns beyond the edge have infinite norms and are never nearest.
    candidates = (2 * reach + 1) * each
    first = (torch.arange(width, device=queries.device)[:, None] - reach) * each
    lines: dict[int, tuple[Tensor, Tensor]] = {}
    for y in range(height):
        near = range(max(0, y - window), min(height, y + window + 1))
        for line in near:
            if line not in lines:
                inside = bank[line].float() - center
                values = F.pad(inside, (0, 0, 0, 0, reach, reach))
                norms = F.pad(inside.square().sum(-1), (0, 0, reach, reach), value=torch.inf)
                lines[line] = (
                    values.as_strided((width, size, candidates), (each * size, 1, size)),
                    norms.as_strided((width, 1, candidates), (each, 1, 1)),
                )
        lines = {line: lines[line] for line in near}
        for line, (values, norms) in lines.items():
            found, at = torch.baddbmm(norms, centered[y], values, alpha=-2).min(dim=-1)
            better = found < best[y]
            best[y] = torch.where(better, found, best[y])
            rows[y] = torch.where(better, at + first + line * width * each, rows[y])
    distances = distances_to(asked.flatten(0, 2), bank.flatten(0, 2), rows.flatten()).view_as(rows)
    return distances.permute(2, 0, 1), rows.permute(2, 0, 1)


def window_rows(row: int, shape: tuple[int, int, int], window: int, device: torch.device) -> Tensor:
    """Rows of a bank [h*w*n,D] whose positions are at most ``window`` away from that of ``row``.

    Args:
        row: a row at the position of a query.
        shape: (h, w, n).
    """
    height, width, each = shape
    y, x = divmod(row // each, width)
    grid = torch.arange(height * width * each, device=device).view(height, width, each)
    near = grid[max(0, y - window) : y + window + 1, max(0, x - window) : x + window + 1]
    return near.flatten()
