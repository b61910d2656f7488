"""Windows: stretches of the float32 number line whose scores are counted by address, at memory speed.

A window is a run of equal dyadic cells of float32 bit patterns of one sign. A score's cell is a subtraction
and a shift of its bits, so nothing is sorted or searched. Cells are as fine as the memory allows, and lie
where the first scores were; what falls outside every window goes to the table of `idif.metrics.counts`, whose
cells are dyadic too, so that all of them fuse.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.metrics.counts import Array, BoolArray, IntArray, ScoreCounts

BitArray = npt.NDArray[np.uint32]

_NEGATIVE = 1 << 31
_LARGEST = 0x7F7FFFFF
"""Bits of the greatest finite float32."""
_CHUNK = 1 << 16
"""Scores counted at a time: what is in between stays in the processor's cache."""
_SAMPLE = 1 << 14
"""Scores a window is placed by."""
_WORTHWHILE = 0.01
"""Cells are doubled as long as that brings at least this share of the scores into the window."""
_ENOUGH = 0.3
"""Share of the scores a window must hold; what is left may be another window's."""


class Window:
    """Counts of the scores in one window, by cell."""

    def __init__(self, first: int, shift: int, cells: int, lanes: int) -> None:
        """An empty window.

        Args:
            first: number of the first cell: bits of its scores shifted right by ``shift``.
            shift: a cell holds ``2^shift`` neighbouring bit patterns.
            cells: how many.
            lanes: threads that may count at once, each in a lane of its own.
        """
        self._bottom, self._shift, self._cells = first << shift, shift, cells
        # A cell that ends in -0.0 would hold 0.0 without knowing.
        assert self._bottom + (cells << shift) <= _NEGATIVE or self._bottom > _NEGATIVE
        # The last place of each lane counts what lies outside.
        self._lanes = np.zeros((lanes, cells + 1), np.int32)
        self._room = 0
        self._on_device: dict[torch.device, Tensor] = {}
        # [3, cells]: all scores, the anomalous ones, their region weights.
        self._counts = np.zeros((3, cells), np.int64)

    def count(self, bits: BitArray, lane: int) -> BitArray:
        """Count scores given by their bits [M] in a lane; returns the bits of those outside."""
        counts, cells = self._lanes[lane], self._cells
        space, places = np.empty(_CHUNK, np.uint32), np.empty(_CHUNK, np.int64)
        bottom, before = np.uint32(self._bottom), counts[-1]
        # torch lets other threads run while it adds, which numpy does not.
        into, ones = torch.from_numpy(counts), torch.ones(_CHUNK, dtype=torch.int32)
        outside = [bits[:0]]
        for start in range(0, bits.size, _CHUNK):
            chunk = bits[start : start + _CHUNK]
            cell, place = space[: chunk.size], places[: chunk.size]
            # What is below the bottom wraps around to beyond the top.
            np.subtract(chunk, bottom, out=cell)
            np.right_shift(cell, self._shift, out=cell)
            np.minimum(cell, cells, out=cell)
            np.copyto(place, cell)
            into.scatter_add_(0, torch.from_numpy(place), ones[: place.size])
            if counts[-1] != before:
                before = counts[-1]
                outside.append(chunk[cell == cells])
        return np.concatenate(outside)

    def set_lanes(self, lanes: int) -> None:
        """Let so many threads count at once: the process it came from may have had fewer."""
        self._settle()
        self._lanes = np.zeros((lanes, self._cells + 1), np.int32)

    def make_room(self, pixels: int) -> None:
        """Before ``pixels`` scores are counted: see that no lane can overflow."""
        if self._room < pixels:
            self._settle()
            self._room = int(np.iinfo(np.int32).max)
        self._room -= pixels

    def count_tensor(self, bits: Tensor) -> Tensor:
        """`count` on the device ``bits`` (int32 [M]) is on: returns those outside, int32."""
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
        return bits[outside]

    def mark(self, scores: Array, weights: IntArray) -> BoolArray:
        """Say which of the counted scores are anomalous.

        Args:
            scores: float32 [A].
            weights: [A]: their region weights.

        Returns:
            bool [A]: true where a score lies in this window; the others' are left to the caller.
        """
        cell = (_bits(scores) - self._bottom) >> self._shift
        inside: BoolArray = (cell >= 0) & (cell < self._cells)
        np.add.at(self._counts[1], cell[inside], 1)
        np.add.at(self._counts[2], cell[inside], weights[inside])
        return inside

    def add(self, values: Array, totals: IntArray) -> BoolArray:
        """Count distinct scores, each occurring so many times; returns which lie in this window.

        Args:
            values: float32 [D].
            totals: [D].
        """
        cell = (_bits(values) - self._bottom) >> self._shift
        inside: BoolArray = (cell >= 0) & (cell < self._cells)
        np.add.at(self._counts[0], cell[inside], totals[inside])
        return inside

    def take_in(self, table: ScoreCounts) -> ScoreCounts:
        """Add the entries that lie in one of the cells; returns the others."""
        cell = (_bits(table.low) - self._bottom) >> self._shift
        end = (_bits(table.high) - self._bottom) >> self._shift
        inside = (cell == end) & (cell >= 0) & (cell < self._cells)
        chosen, cell = table.take(inside), cell[inside]
        np.add.at(self._counts[0], cell, chosen.normal + chosen.anomalous)
        np.add.at(self._counts[1], cell, chosen.anomalous)
        np.add.at(self._counts[2], cell, chosen.region)
        return table.take(~inside)

    def table(self) -> ScoreCounts:
        """The cells that hold something, ascending by score."""
        self._settle()
        seen = np.flatnonzero(self._counts[0])
        start = self._bottom + (seen << self._shift)
        ends = [start, start + (1 << self._shift) - 1]
        if self._bottom >= _NEGATIVE:
            # Here the bits ascend while the scores descend.
            seen, ends = seen[::-1], [ends[1][::-1], ends[0][::-1]]
        total, anomalous, region = self._counts[:, seen]
        low, high = (
            ((e & _NEGATIVE) | np.minimum(e & (_NEGATIVE - 1), _LARGEST)).astype(np.uint32).view(np.float32)
            for e in ends
        )
        return ScoreCounts(low, high, total - anomalous, anomalous, region)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: no device, lanes empty."""
        self._settle()
        return self.__dict__

    def _settle(self) -> None:
        """Bring what the lanes and devices counted together."""
        for lane in self._lanes:
            self._counts[0] += lane[:-1]
        self._lanes[:] = 0
        self._room = 0
        for counts in self._on_device.values():
            self._counts[0] += counts[:-1].cpu().numpy()
        self._on_device.clear()


def place_window(values: Array, totals: IntArray, cells: int, lanes: int) -> Window | None:
    """A window where most of some scores are; None where no stretch of so many cells holds enough of them.

    Args:
        values: float32 [D]: distinct scores, ascending.
        totals: [D]: how often each occurs.
        cells: of the window.
        lanes: of the window.
    """
    running = np.cumsum(totals)
    if not running.size:
        return None
    # Scores in equal steps of rank: each stands for as many as the others.
    at = np.searchsorted(running, (np.arange(_SAMPLE) + 0.5) * running[-1] / _SAMPLE)
    sample = np.sort(_bits(values[at]))
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
    return Window(first, shift, cells, lanes)


def _bits(scores: Array) -> IntArray:
    """float32 bit patterns as int64, -0.0 as 0.0."""
    return (scores + np.float32(0)).view(np.uint32).astype(np.int64)
