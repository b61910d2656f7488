"""Counter-based random numbers: a pure function of (seed, stream, index).

A view's seed is a hash of (run seed, epoch, sample id, view number). Draw ``i`` of stream ``s`` of a seed is
a fixed integer function of (seed, s, i). Hence a view gets the same bits with every source, batch size,
worker count, world size and subset of categories, on every device.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
"""splitmix64's increment and multipliers as signed 64-bit numbers (Steele, Lea and Flood, OOPSLA 2014)."""


def _hash(parts: tuple[int | str, ...], size: int) -> bytes:
    """Hash of the parts and their boundaries, ``size`` bytes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=size).digest()


def view_seeds(run_seed: int, epoch: int, sample_ids: Sequence[str], view_numbers: Sequence[int]) -> Tensor:
    """One seed per view of each sample.

    Returns:
        int64 [B,V] on the CPU, for B sample ids and V view numbers.
    """
    run, at = int(run_seed), int(epoch)
    data = b"".join(
        _hash((run, at, sample_id, int(view)), 8) for sample_id in sample_ids for view in view_numbers
    )
    seeds = np.frombuffer(data, dtype="<i8").astype(np.int64)
    return torch.from_numpy(seeds.reshape(len(sample_ids), len(view_numbers)))


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by its parts, e.g. ``numpy_rng("order", seed, epoch)``."""
    plain = tuple(part if isinstance(part, str) else int(part) for part in parts)
    return np.random.default_rng(int.from_bytes(_hash(plain, 16), "little"))


def stream(name: str) -> int:
    """Stream number of a named quantity: 2^16 to 2^31 - 1, above the fixed numbers of older quantities."""
    number = int.from_bytes(_hash(("stream", name), 4), "little") & 0x7FFF_FFFF
    return number | 2**16


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch of one training step: the same in every source, batch size and process.

    Numbers for a view or a sample depend on the run's seed, the epoch, the sample's id and the view alone;
    those for the step also on its number and on the process.
    """

    seed: int
    """Seed of the run."""
    epoch: int
    step: int
    rank: int
    sample_ids: tuple[str, ...]
    """The B sample ids of the batch."""
    view_numbers: tuple[int, ...]
    """Camera number of each of the V view slots."""
    device: torch.device

    def view_seeds(self) -> Tensor:
        """int64 [B,V]: one seed per view, for `uniform` and `integers`."""
        return view_seeds(self.seed, self.epoch, self.sample_ids, self.view_numbers).to(self.device)

    def sample_seeds(self) -> Tensor:
        """int64 [B]: one seed per sample, distinct from those of its views."""
        return view_seeds(self.seed, self.epoch, self.sample_ids, (0,))[:, 0].to(self.device)

    def generator(self, name: str) -> torch.Generator:
        """A generator of torch for the quantity ``name`` of this step and process."""
        seed = int.from_bytes(_hash((self.seed, self.step, self.rank, name), 8), "little", signed=True)
        return torch.Generator(self.device).manual_seed(seed)

    def apart(self, name: str) -> "Draws":
        """Independent draws of the same batch, for a stage that must not repeat those of another."""
        return replace(self, seed=int.from_bytes(_hash((self.seed, name), 4), "little"))

    def seed_torch(self) -> None:
        """Seed torch's global generators for this step and process, for code that uses no other."""
        torch.manual_seed((self.seed * 1_000_003 + self.step * 8_191 + self.rank) & 0x7FFF_FFFF_FFFF_FFFF)


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24.

    Args:
        seeds: int64 [...].
        stream: which of a seed's independent sequences, one number for each quantity drawn; see `stream`.
        count: numbers per seed. A larger count continues a smaller one.

    Returns:
        float32 [...,count] on the device of ``seeds``, the same bits on every device.
    """
    return _shift(_bits(seeds, stream, count), 40).to(torch.float32) * 2.0**-24


def integers(seeds: Tensor, stream: int, count: int, high: int) -> Tensor:
    """Integers uniform in [0, high), up to a bias of high / 2^32.

    Args:
        seeds: int64 [...].
        stream: which of a seed's independent sequences, one number for each quantity drawn; see `stream`.
        count: numbers per seed.
        high: 1 to 2^31.

    Returns:
        int64 [...,count] on the device of ``seeds``, the same on every device.
    """
    assert 1 <= high <= 2**31, high
    return (_shift(_bits(seeds, stream, count), 32) * high) >> 32


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical right shift; int64 has only the arithmetic one."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finalizer: every output bit depends on every input bit. Products wrap around."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _bits(seeds: Tensor, stream: int, count: int) -> Tensor:
    """int64 [...,count] random bits: splitmix64 from the mixed seed, starting at ``stream * 2^32``."""
    assert seeds.dtype == torch.int64, seeds.dtype
    assert 0 <= stream < 2**31, stream
    counter = torch.arange(1, count + 1, device=seeds.device) + (int(stream) << 32)
    # without mixing, seeds that differ by the increment would give shifted copies of one sequence
    return _mix(_mix(seeds + _GOLDEN)[..., None] + counter * _GOLDEN)
