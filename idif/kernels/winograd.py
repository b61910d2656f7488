"""3x3 convolutions by Winograd's minimal filtering, forward and backward, on a CPU in float32.

F(4x4, 3x3) of Lavin and Gray (2016, "Fast algorithms for convolutional neural networks") takes 36 products
where a direct convolution takes 144. With filters W, a tile d of the input and g of the output's gradient:

    output    A' [ (G W G') * (B' d B) ] A
    dW        G' [ (B' d B) * (A g A') ] G        summed over the tiles
    dd        as the output, of g and the filters turned by 180 degrees with in and out exchanged

where * is a matrix product over channels in each of the 36 places. Tiles are transformed a few at a time, so
that they are still in a core's cache when they are multiplied. Rounding differs from that of a direct
convolution: relative to it results differ by 2e-6 to 8e-6 (root mean square). With as many threads as before,
they are the same bits.

N images, G groups of C input and K output channels, T tiles.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from idif.kernels.winograd_transforms import gradient_tiles, input_tiles, output_tiles

FEWEST_CHANNELS = 32
"""With fewer channels the transforms cost as much as the products save."""
FEWEST_TILES = 64
"""With fewer tiles, loading the filters, four times as large as untransformed ones, limits the speed."""
TILES_AT_ONCE = 64
TILE_CHANNELS_AT_ONCE = 8192
"""Tiles of a piece times their channels, at least `TILES_AT_ONCE` tiles: 1.2 MB of products."""

FILTERS = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
"""G of F(4, 3)."""
FILTERS_2D = torch.kron(FILTERS, FILTERS).to(torch.float32)
"""[36,9]: G on both axes."""

Piece = tuple[int, int, int]
"""Group, first tile, tiles."""
Result = TypeVar("Result")


@contextmanager
def winograd_convolutions() -> Iterator[None]:
    """Within this context, supported convolutions use `convolve`; all others use torch."""
    with _Convolutions():
        yield


class _Convolutions(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.conv2d and is_supported(*args, **given):
            return _convolved(*args, **given)
        return func(*args, **given)


def is_supported(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> bool:
    """Whether `convolve` can compute this ``F.conv2d``, and faster.

    That is: 3x3, stride 1, padding 1, float32 and on the CPU, with enough channels and tiles. Arguments that
    torch rejects are left to torch.
    """
    ones = (1, [1], (1,), [1, 1], (1, 1))
    return (
        _shapes_match(input, weight, groups)
        and not torch.is_autocast_enabled("cpu")
        and stride in ones
        and padding in ones
        and dilation in ones
        and (bias is None or bias.shape == weight.shape[:1])
        and min(weight.shape[0] // groups, weight.shape[1]) >= FEWEST_CHANNELS
        and _tiles(input) >= FEWEST_TILES
    )


def convolve(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Cross-correlation with padding 1, as ``F.conv2d(x, weight, padding=1, groups=groups)``.

    Args:
        x: float32 [N,G*C,H,W] on the CPU, best laid out channels last.
        weight: float32 [G*K,C,3,3].
        groups: G.

    Returns:
        float32 [N,G*K,H,W], channels last.

    Raises:
        ValueError: another shape, type or device.
    """
    if not _shapes_match(x, weight, groups):
        raise ValueError(
            f"expected float32 [N,{groups}*C,H,W] and [{groups}*K,C,3,3] on the CPU, got {_describe(x)} and "
            f"{_describe(weight)}"
        )
    found: Tensor = _Convolve.apply(x, weight, groups)
    return found


def _shapes_match(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether ``x`` is at least one image and ``weight`` are matching 3x3 filters."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.ndim == weight.ndim == 4
        and x.numel() > 0
        and weight.shape[2:] == (3, 3)
        and x.shape[1] == groups * weight.shape[1]
        and weight.shape[0] % groups == 0
    )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 1,
    dilation: object = 1,
    groups: int = 1,
) -> Tensor:
    """`convolve` by the arguments of ``F.conv2d``, of which `is_supported` leaves no choice in three."""
    found = convolve(input, weight, groups)
    return found if bias is None else found + bias[:, None, None]


def compile_transforms() -> None:
    """Compile the functions of `convolve` with numba (5 s), or load them from its cache (0.5 s)."""
    x, weight = torch.zeros(1, 1, 4, 4, requires_grad=True), torch.zeros(1, 1, 3, 3, requires_grad=True)
    torch.autograd.grad(convolve(x, weight).sum(), (x, weight))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return _products(x, _multipliers(weight, groups, FILTERS_2D).transpose(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            # reversing the columns rotates the filters by 180 degrees
            dx = _products(gradient, _multipliers(weight, ctx.groups, FILTERS_2D.flip(1)))
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, gradient, ctx.groups)
        return dx, dw, None


def _multipliers(weight: Tensor, groups: int, transform: Tensor) -> Tensor:
    """[G,36,K,C] of ``weight`` [G*K,C,3,3], in memory that the next call reuses."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    filters = (
        weight.detach().view(groups, outputs, inputs, 3, 3).permute(0, 3, 4, 1, 2).reshape(groups, 9, -1)
    )
    made = _kept_memory(groups * 36 * outputs * inputs).view(groups, 36, -1)
    for group in range(groups):
        torch.mm(transform, filters[group], out=made[group])
    return made.view(groups, 36, outputs, inputs)


def _products(x: Tensor, multipliers: Tensor) -> Tensor:
    """[N,G*Y,H,W], channels last, of ``x`` [N,G*X,H,W] and ``multipliers`` [G,36,X,Y]."""
    groups, _, inputs, outputs = multipliers.shape
    pixels = _pixels(x, groups)
    # not a view of another tensor, so that later operations may change it in place
    convolved = torch.empty(len(x), groups * outputs, *x.shape[2:], memory_format=torch.channels_last)
    made = _pixels(convolved, groups)

    def work(mine: Sequence[Piece]) -> None:
        room = _Workspace(mine, inputs, outputs)
        for group, first, tiles in mine:
            before, after = room.tiles(tiles)
            input_tiles(pixels.numpy(), group, first, before.numpy(), room.scratch_in)
            torch.bmm(before, multipliers[group], out=after)
            output_tiles(after.numpy(), group, first, made.numpy(), room.scratch_out)

    _run_in_threads(work, _tile_blocks(groups, _tiles(x), max(inputs, outputs)))
    return convolved


def _weight_gradient(x: Tensor, gradient: Tensor, groups: int) -> Tensor:
    """[G*K,C,3,3] of ``x`` [N,G*C,H,W] and ``gradient`` [N,G*K,H,W]."""
    inputs, outputs = x.shape[1] // groups, gradient.shape[1] // groups
    pixels, slopes = _pixels(x, groups), _pixels(gradient, groups)

    def work(mine: Sequence[Piece]) -> dict[int, Tensor]:
        room, sums = _Workspace(mine, inputs, outputs), torch.empty(36, outputs, inputs)
        found: dict[int, Tensor] = {}
        for place, (group, first, tiles) in enumerate(mine):
            before, after = room.tiles(tiles)
            input_tiles(pixels.numpy(), group, first, before.numpy(), room.scratch_in)
            gradient_tiles(slopes.numpy(), group, first, after.numpy(), room.scratch_out)
            begins = place == 0 or mine[place - 1][0] != group
            torch.baddbmm(sums, after.transpose(1, 2), before, beta=0 if begins else 1, out=sums)
            if place + 1 == len(mine) or mine[place + 1][0] != group:
                found[group] = FILTERS_2D.T @ sums.view(36, -1)
        return found

    total = x.new_zeros(groups, 9, outputs * inputs)
    for share in _run_in_threads(work, _tile_blocks(groups, _tiles(x), max(inputs, outputs))):
        for group, found in share.items():
            total[group] += found
    return total.view(groups, 3, 3, outputs, inputs).permute(0, 3, 4, 1, 2).flatten(0, 1)


def _tiles(x: Tensor) -> int:
    """T of images [N,*,H,W]."""
    return len(x) * -(-x.shape[2] // 4) * -(-x.shape[3] // 4)


def _pixels(x: Tensor, groups: int) -> Tensor:
    """Contiguous [N,H,W,G,C] of ``x`` [N,G*C,H,W]; a copy if ``x`` is not channels last."""
    pixels = x.detach().permute(0, 2, 3, 1).contiguous()
    return pixels.view(*pixels.shape[:3], groups, -1)


def _tile_blocks(groups: int, tiles: int, channels: int) -> list[Piece]:
    """Divide all tiles of all groups into pieces of nearly the same size."""
    count = -(-tiles // max(TILES_AT_ONCE, TILE_CHANNELS_AT_ONCE // channels))
    edges = [tiles * i // count for i in range(count + 1)]
    return [(g, a, b - a) for g in range(groups) for a, b in pairwise(edges)]


class _Workspace:
    """Memory of one thread for one piece at a time."""

    def __init__(self, pieces: Sequence[Piece], inputs: int, outputs: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        most = max(tiles for _, _, tiles in pieces)
        self._before, self._after = torch.empty(36 * most * inputs), torch.empty(36 * most * outputs)
        self.scratch_in = torch.empty(6, 6, inputs).numpy()
        self.scratch_out = torch.empty(6, 6, outputs).numpy()

    def tiles(self, tiles: int) -> tuple[Tensor, Tensor]:
        """[36,T,C] and [36,T,K]."""
        before, after = 36 * tiles * self.inputs, 36 * tiles * self.outputs
        return self._before[:before].view(36, tiles, -1), self._after[:after].view(36, tiles, -1)


def _run_in_threads(work: Callable[[Sequence[Piece]], Result], pieces: Sequence[Piece]) -> list[Result]:
    """Run ``work`` on one share of the pieces per torch thread; results in the order of the pieces."""
    threads = min(torch.get_num_threads(), len(pieces))
    if threads == 1:
        return [work(pieces)]
    edges = [len(pieces) * i // threads for i in range(threads + 1)]
    shares = [pieces[a:b] for a, b in pairwise(edges)]
    return list(_pool(torch.get_num_threads()).map(work, shares))


def _kept_memory(numbers: int) -> Tensor:
    """Uninitialized float32 [numbers], the same memory at each call in a thread.

    The system maps new memory page by page, which took as long as filling it.
    """
    buffer: Tensor | None = getattr(_KEPT, "memory", None)
    if buffer is None or len(buffer) < numbers:
        # training cannot use memory that was allocated in inference mode
        with torch.inference_mode(False):
            buffer = _KEPT.memory = torch.empty(numbers)
    return buffer[:numbers]


_KEPT = threading.local()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch uses a single thread."""
    together = threading.Barrier(threads)

    def begin() -> None:
        # torch sets a thread's number of threads once by itself, which would later override ours
        torch.get_num_threads()
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="winograd", initializer=begin)
    try:
        list(pool.map(lambda _: None, range(threads)))
    except BaseException:
        together.abort()  # otherwise the others would wait for a thread that could not be started
        raise
    finally:
        # every pool thread has set its own number; this sets it for all later threads
        torch.set_num_threads(threads)
    return pool
