"""Windows: stretches of the float32 number line whose scores are counted by address, at memory speed.

A window is a run of equal dyadic cells of float32 bit patterns of one sign. A score's cell is a subtraction
and a shift of its bits, so nothing is sorted or searched. Cells are as fine as the memory allows, and lie
where the first scores were; what falls outside every window goes to the table of
`idif.metrics.score_counts`, whose cells are dyadic too, so that all of them fuse.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.metrics.score_counts import Array, BoolArray, IntArray, ScoreCounts
from idif.metrics.threads import map_in_threads

BitArray = npt.NDArray[np.uint32]

_NEGATIVE = 1 << 31
_LARGEST = 0x7F7FFFFF
"""Bits of the greatest finite float32."""
_CHUNK = 1 << 16
"""Scores whose cells are found at a time: what is in between stays in the processor's cache."""
_SAMPLE = 1 << 14
"""Scores a window is placed by."""
_WORTHWHILE = 0.01
"""Cells are doubled as long as that brings at least this share of the scores into the window."""
_ENOUGH = 0.3
"""Share of the scores a window must hold; what is left may be another window's."""


class Window:
    """Counts of the scores in one window, by cell."""

    def __init__(self, first: int, shift: int, cells: int, buffer_pixels: int) -> None:
        """An empty window.

        Args:
            first: number of the first cell: bits of its scores shifted right by ``shift``.
            shift: a cell holds ``2^shift`` neighbouring bit patterns.
            cells: how many.
            buffer_pixels: scores whose cells are gathered before they are counted; 4 bytes each.
        """
        self._bottom, self._shift, self._cells = first << shift, shift, cells
        # A cell that ends in -0.0 would hold 0.0 without knowing.
        assert self._bottom + (cells << shift) <= _NEGATIVE or self._bottom > _NEGATIVE
        self._buffer_pixels = buffer_pixels
        # The cells of scores that wait to be counted; the number after the last says that it lies outside.
        self._waiting = np.empty(0, np.uint32)
        self._waiting_pixels = 0
        self._on_device: dict[torch.device, Tensor] = {}
        # [3, cells]: all scores, the anomalous ones, their region weights.
        self._counts = np.zeros((3, cells), np.int64)

    def count(self, scores: Array, lanes: int) -> Array:
        """Count float32 scores [M] in so many threads; returns those outside, in their order."""
        bits, outside, start = scores.view(np.uint32), [scores[:0].view(np.uint32)], 0
        if not self._waiting.size:
            self._waiting = np.empty(self._buffer_pixels, np.uint32)
        while start < bits.size:
            stop = min(bits.size, start + self._buffer_pixels - self._waiting_pixels)
            some, room = bits[start:stop], self._waiting[self._waiting_pixels :]

            def work(_: int, part: slice, some: BitArray = some, room: BitArray = room) -> list[BitArray]:
                return self._find_cells(some[part], room[part])

            for found in map_in_threads(work, some.size, some.size, lanes):
                outside += found
            self._waiting_pixels += some.size
            if self._waiting_pixels == self._buffer_pixels:
                self._count_waiting(lanes)
            start = stop
        return np.concatenate(outside).view(np.float32)

    def _find_cells(self, bits: BitArray, into: BitArray) -> list[BitArray]:
        """Write the cell of each score [M] into [M]; returns the bits of those outside."""
        bottom, cells = np.uint32(self._bottom), np.uint32(self._cells)
        # numpy compares two arrays several times as fast as an array and a number.
        after_last, outside = np.full(min(_CHUNK, bits.size), cells), []
        for start in range(0, bits.size, _CHUNK):
            some, cell = bits[start : start + _CHUNK], into[start : start + _CHUNK][: bits.size - start]
            # What is below the bottom wraps around to beyond the top.
            np.subtract(some, bottom, out=cell)
            np.right_shift(cell, self._shift, out=cell)
            np.minimum(cell, after_last[: cell.size], out=cell)
            if cell.max() == cells:
                outside.append(some[cell == cells])
        return outside

    def _count_waiting(self, lanes: int) -> None:
        # bincount reads int32 at twice the speed of int64, and lets other threads run.
        waiting = torch.from_numpy(self._waiting[: self._waiting_pixels].view(np.int32))

        def work(_: int, part: slice) -> Tensor:
            return torch.bincount(waiting[part], minlength=self._cells + 1)

        for found in map_in_threads(work, self._waiting_pixels, self._waiting_pixels, lanes):
            self._counts[0] += found.numpy()[:-1]
        self._waiting_pixels = 0

    def count_tensor(self, scores: Tensor) -> Tensor:
        """`count` on the device that float32 ``scores`` [M] are on."""
        bits = scores.view(torch.int32)
        if bits.device not in self._on_device:
            # A tensor made in inference mode could not be added to outside of it.
            with torch.inference_mode(False):
                self._on_device[bits.device] = torch.zeros(
                    self._cells + 1, dtype=torch.int64, device=bits.device
                )
        cell = ((bits.long() & 0xFFFFFFFF) - self._bottom) >> self._shift
        outside = (cell < 0) | (cell >= self._cells)
        cell[outside] = self._cells
        self._on_device[bits.device].scatter_add_(0, cell, torch.ones_like(cell))
        return scores[outside]

    def mark(self, scores: Array, weights: IntArray) -> BoolArray:
        """Say which of the counted scores are anomalous.

        Args:
            scores: float32 [A].
            weights: [A]: their region weights.

        Returns:
            bool [A]: true where a score lies in this window; the others' are left to the caller.
        """
        cell, inside = self._locate(scores)
        np.add.at(self._counts[1], cell[inside], 1)
        np.add.at(self._counts[2], cell[inside], weights[inside])
        return inside

    def take_in(self, table: ScoreCounts) -> ScoreCounts:
        """Add the entries that lie in one of the cells; returns the others."""
        (cell, inside), (end, _) = self._locate(table.low), self._locate(table.high)
        inside &= cell == end
        chosen, cell = table.take(inside), cell[inside]
        np.add.at(self._counts[0], cell, chosen.normal + chosen.anomalous)
        np.add.at(self._counts[1], cell, chosen.anomalous)
        np.add.at(self._counts[2], cell, chosen.region)
        return table.take(~inside)

    def meets(self, other: "Window") -> bool:
        """Whether the windows share a stretch of the number line."""
        return self._bottom < other._top and other._bottom < self._top

    def table(self, beside: Sequence[ScoreCounts] | None = None) -> ScoreCounts:
        """The cells that hold something, ascending by score.

        Args:
            beside: the tables this one is to be fused with. Given them, neighbouring cells without anomalous
                scores, and without an entry of those tables, become one: no curve has a corner there.
        """
        self._settle()
        totals, anomalous, region = self._counts
        if beside is None:
            first = np.arange(self._cells)
        else:
            apart = anomalous > 0
            for table in beside:
                for ends in (table.low, table.high):
                    cell, inside = self._locate(ends)
                    apart[cell[inside]] = True
            starts = apart.copy()
            starts[0] = True
            starts[1:] |= apart[:-1]
            first = np.flatnonzero(starts)
        last = np.append(first[1:], self._cells) - 1
        total = np.add.reduceat(totals, first)
        filled = total > 0
        first, last, total = first[filled], last[filled], total[filled]
        found = ScoreCounts(
            _score(self._bottom + (first << self._shift)),
            _score(self._bottom + ((last + 1) << self._shift) - 1),
            total - anomalous[first],
            anomalous[first],
            region[first],
        )
        if self._bottom < _NEGATIVE:
            return found
        # Here the bits ascend while the scores descend.
        back = found.take(np.arange(len(found))[::-1])
        return replace(back, low=back.high, high=back.low)

    def _locate(self, scores: Array) -> tuple[IntArray, BoolArray]:
        """The cell of each float32 score, and whether it is one of this window's."""
        cell = (_bits(scores) - self._bottom) >> self._shift
        return cell, (cell >= 0) & (cell < self._cells)

    @property
    def _top(self) -> int:
        return self._bottom + (self._cells << self._shift)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: no device, nothing that waits."""
        self._settle()
        return {**self.__dict__, "_waiting": self._waiting[:0]}

    def _settle(self) -> None:
        """Bring together what waits and what devices counted."""
        self._count_waiting(1)
        for counts in self._on_device.values():
            self._counts[0] += counts[:-1].cpu().numpy()
        self._on_device.clear()


def sample_ranks(scores: int) -> IntArray:
    """Ranks, from 0, in equal steps through one or more scores: each stands for as many as the others."""
    return -(-(2 * np.arange(_SAMPLE, dtype=np.int64) + 1) * scores // (2 * _SAMPLE)) - 1


def place_window(sample: Array, cells: int, buffer_pixels: int) -> Window | None:
    """A window where most of some scores are; None where no stretch of so many cells holds enough of them.

    Args:
        sample: float32 [16384]: the scores at `sample_ranks`.
        cells: of the window.
        buffer_pixels: of the window.
    """
    sample = np.sort(_bits(sample))
    negative = int((sample >= _NEGATIVE).sum()) > _SAMPLE // 2
    sample = sample[(sample >= _NEGATIVE) == negative]

    def best(shift: int) -> tuple[float, int, int]:
        """Greatest share in any window of this shift, and the first and last cell that hold it."""
        cell = sample >> shift
        end = np.searchsorted(cell, cell + cells)
        left = int(np.argmax(end - np.arange(sample.size)))
        return float(end[left] - left) / _SAMPLE, int(cell[left]), int(cell[end[left] - 1])

    shift, (share, first, last) = 0, best(0)
    while shift < 24:
        share_next, first_next, last_next = best(shift + 1)
        if share >= _ENOUGH and share_next < share + _WORTHWHILE:
            break
        shift, share, first, last = shift + 1, share_next, first_next, last_next
    if share < _ENOUGH:
        return None
    # What is to spare goes to both sides, within the sign.
    lowest = (_NEGATIVE >> shift) + 1 if negative else 0
    highest = ((1 << 32) if negative else _NEGATIVE) >> shift
    first = min(max(first - (cells - 1 - (last - first)) // 2, lowest), highest - cells)
    if first < lowest:
        return None
    return Window(first, shift, cells, buffer_pixels)


def _bits(scores: Array) -> IntArray:
    """float32 bit patterns as int64, -0.0 as 0.0."""
    return (scores + np.float32(0)).view(np.uint32).astype(np.int64)


def _score(bits: IntArray) -> Array:
    """The float32 of each bit pattern, finite."""
    finite: IntArray = (bits & _NEGATIVE) | np.minimum(bits & (_NEGATIVE - 1), _LARGEST)
    return finite.astype(np.uint32).view(np.float32)
