"""Reads checkpoints of MSFlow's authors (``best_det.pt``, ``last.pt``).

The layout is that of flows built with FrEIA 0.2: a chain of ``AllInOneBlock`` for each scale, and a graph of
one permutation for each scale and a two-way coupling. Names of containers do not matter. Tensors are assigned
by their number of channels, since the order of a graph's modules varies from one process to the next, then by
shape, and among equal shapes by the numbers in their names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from idif.encoders.weights_file import read_nested_weights
from idif.errors import WeightsError
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.protocol import ImportedWeights, MethodContext

_SCALE, _OFFSET = ".global_scale", ".global_offset"
_MATRIX, _MATRIX_INVERSE = ".w_perm", ".w_perm_inv"
_ORDER, _ORDER_INVERSE = ".perm", ".perm_inv"
"""Endings of names inside FrEIA 0.2."""
_LOG_SCALE = re.compile(r"(^|_)(s|scales?|log_?scales?)(_|\d|$)")
_SHIFT = re.compile(r"(^|_)(t|trans|translations?|shifts?)(_|\d|$)")
"""Names of convolutions that give one part of an affine map."""


def import_weights(config: MSFlowConfig, context: MethodContext, path: Path) -> ImportedWeights:
    """The weights of an authors' checkpoint.

    Args:
        config: settings, with the scales and their numbers of blocks.
        context: with the arrays of the scales.
        path: a file that the authors' trainer wrote.

    Raises:
        WeightsError: the file cannot be read, is no checkpoint of MSFlow, has other numbers of blocks, or
            does not determine the assignment.
    """
    channels = [context.features.arrays[name].shape[0] for name in config.scales]
    if len(set(channels)) < len(channels):
        raise WeightsError(
            f"{path}: flows are recognized by their channels, but two scales of the config have as many: "
            f"{', '.join(map(str, channels))}"
        )
    rest = read_nested_weights(path)
    widths = {name.removesuffix(_SCALE): x.numel() for name, x in rest.items() if name.endswith(_SCALE)}
    if not widths:
        raise WeightsError(
            f"{path}: expected a checkpoint of MSFlow with tensors named …{_SCALE}, found "
            f"{', '.join(list(rest)[:3]) or 'nothing'}"
        )
    named: dict[str, Tensor] = {}
    for number, (scale, count, wanted) in enumerate(zip(config.scales, channels, config.blocks, strict=True)):
        own = sorted((block for block, width in widths.items() if width == count), key=_natural)
        if len(own) != wanted:
            raise WeightsError(
                f"{path}: has {len(own)} blocks of {count} channels; the config's method.blocks gives "
                f"{wanted} for {scale}"
            )
        for position, block in enumerate(own):
            place = f"parallel.{number}.blocks.{position}"
            named |= _block(_pop(rest, block), count, config.position_channels, place, path)
    named |= _fusion(rest, channels, path)
    # what is left has no place, which loading refuses
    return ImportedWeights({**named, **rest})


def _block(own: dict[str, Tensor], channels: int, code: int, place: str, path: Path) -> dict[str, Tensor]:
    """Our names of a block's tensors; those without a place keep theirs.

    Args:
        own: tensors of the block, which are used up.
        channels: of the block.
        code: channels of the position code.
        place: our name of the block.
        path: for messages.
    """
    named = {}
    for ending, ours in ((_SCALE, "raw_scale"), (_OFFSET, "offset")):
        for name in [name for name in own if name.endswith(ending)]:
            named[f"{place}.{ours}"] = _reshaped(own.pop(name), (channels, 1, 1))
    for name in [name for name in own if name.endswith(_MATRIX)]:
        matrix = own.pop(name)
        named[f"{place}.permutation.order"] = _order_of_matrix(matrix, name, path)
        inverse = own.pop(name.removesuffix(_MATRIX) + _MATRIX_INVERSE, None)
        if inverse is not None and not torch.equal(inverse.flatten(1), matrix.flatten(1).t()):
            raise WeightsError(f"{path}: {name}_inv is not the inverse of {name}")
    half = channels // 2
    width = half + code
    subnet = {"subnet.0": (width, width, 3, 3), "subnet.1": (width,), "subnet.3": (channels, width, 3, 3)}
    named |= {f"{place}.{ours}": tensor for ours, tensor in _assign(own, subnet)}
    return named | own


def _fusion(rest: dict[str, Tensor], channels: Sequence[int], path: Path) -> dict[str, Tensor]:
    """Our names of the fusion flow's tensors, which are taken out of ``rest``."""
    named: dict[str, Tensor] = {}
    for name in [name for name in rest if name.endswith(_ORDER)]:
        order = rest.pop(name)
        if order.numel() not in channels:
            raise WeightsError(f"{path}: {name} permutes {order.numel()} channels; no scale has as many")
        ours = f"fusion.permutations.{channels.index(order.numel())}.order"
        if ours in named:
            raise WeightsError(f"{path}: {name} is a second permutation of {order.numel()} channels")
        if not torch.equal(order.sort().values, torch.arange(len(order))):
            raise WeightsError(f"{path}: {name} is no permutation")
        named[ours] = order.to(torch.int64)
        inverse = rest.pop(name.removesuffix(_ORDER) + _ORDER_INVERSE, None)
        if inverse is not None and not torch.equal(inverse, order.argsort()):
            raise WeightsError(f"{path}: {name}_inv is not the inverse of {name}")
    halves = [count // 2 for count in channels]
    total = sum(halves)
    width = max(1, total // 4)
    for ours, base in zip(
        ("from_first", "from_second"), _subnets(rest, (width, total, 3, 3), path), strict=True
    ):
        own = _pop(rest, base)
        joined = _join_parts(own, halves, path)
        subnet = {"mix.0": (width, total, 3, 3), "mix.1": (width,), "mix.3": (total, width, 3, 3)}
        subnet |= {f"heads.{number}": (2 * half, half, 3, 3) for number, half in enumerate(halves)}
        named |= {f"fusion.{ours}.{part}": tensor for part, tensor in _assign(joined, subnet)}
        rest |= joined
    return named


def _subnets(rest: Mapping[str, Tensor], shape: Sequence[int], path: Path) -> tuple[str, str]:
    """Names of the fusion flow's two subnets: the one that reads the first halves, and the other.

    The number in a subnet's name is that of the half it reads, as in FrEIA's couplings.
    """
    firsts = [name for name, tensor in rest.items() if tuple(tensor.shape) == tuple(shape)]
    if len(firsts) != 2:
        raise WeightsError(
            f"{path}: expected two subnets of the fusion flow, each with a convolution of shape "
            f"{list(shape)}, found {len(firsts)}"
        )
    one, other = (name.split(".") for name in firsts)
    depth = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if depth is not None:
        labels = sorted((one[depth], other[depth]), key=_natural)
        numbered = [re.search(r"\d+", label) for label in labels]
        if all(numbered) and len({re.sub(r"\d+", "", label) for label in labels}) == 1:
            first, second = (".".join([*one[:depth], label]) for label in labels)
            return first, second
    raise WeightsError(
        f"{path}: which subnet of the fusion flow reads which half is not determined by the names "
        f"{' and '.join(firsts)}: expected numbers"
    )


def _join_parts(own: Mapping[str, Tensor], halves: Sequence[int], path: Path) -> dict[str, Tensor]:
    """A subnet's tensors, with two convolutions of a scale, for log-scale and shift, joined into one."""
    joined = dict(own)
    for half in halves:
        parts = [
            name.removesuffix(".weight")
            for name in sorted(own, key=_natural)
            if own[name].shape == (half, half, 3, 3)
        ]
        if not parts:
            continue
        if len(parts) != 2:
            raise WeightsError(
                f"{path}: expected two convolutions of shape {[half, half, 3, 3]}, for log-scale and shift, "
                f"found {', '.join(parts)}"
            )
        log_scale, shift = _roles(parts[0], parts[1], path)
        for kind in ("weight", "bias"):
            pair = [joined.pop(f"{part}.{kind}", None) for part in (log_scale, shift)]
            found = [x for x in pair if x is not None]
            if found:
                # one without the other has another shape, which loading refuses
                joined[f"{log_scale}.{kind}"] = torch.cat(found)
    return joined


def _roles(one: str, other: str, path: Path) -> tuple[str, str]:
    """The convolution of the log-scale, then that of the shift."""
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a == b:
            continue
        if re.sub(r"\d+", "", a) == re.sub(r"\d+", "", b):
            return one, other
        if _LOG_SCALE.search(a) and _SHIFT.search(b):
            return one, other
        if _LOG_SCALE.search(b) and _SHIFT.search(a):
            return other, one
        break
    raise WeightsError(
        f"{path}: which of {one} and {other} gives the log-scale and which the shift is not determined by "
        "their names"
    )


def _assign(own: dict[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    """(our name, tensor) of every layer that is found; its tensors are taken out of ``own``.

    Args:
        own: tensors by name.
        wanted: {our layer: shape of its weight}, in the order of layers of equal shape.
    """
    for layer, shape in wanted.items():
        for name in sorted(own, key=_natural):
            if not name.endswith(".weight") or _squeezed(own[name], len(shape)).shape != shape:
                continue
            yield f"{layer}.weight", _squeezed(own.pop(name), len(shape))
            bias = name.removesuffix("weight") + "bias"
            if bias in own:
                yield f"{layer}.bias", own.pop(bias).flatten()
            break


def _squeezed(tensor: Tensor, dimensions: int) -> Tensor:
    """A norm's weight without axes of length 1; others as they are."""
    return tensor.flatten() if dimensions == 1 and tensor.numel() == max(tensor.shape, default=1) else tensor


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """In ``shape`` if it fits; otherwise as it is, which loading refuses."""
    return tensor.reshape(shape) if tensor.numel() == torch.Size(shape).numel() else tensor


def _order_of_matrix(matrix: Tensor, name: str, path: Path) -> Tensor:
    """int64 [C]: the input channel of each output channel of a permutation matrix [C,C,1,1]."""
    rows = matrix.flatten(1)
    order = rows.argmax(dim=1)
    if rows.shape[0] != rows.shape[1] or not torch.equal(rows, torch.eye(len(rows), dtype=rows.dtype)[order]):
        raise WeightsError(f"{path}: {name} is no permutation matrix")
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise WeightsError(f"{path}: {name} is no permutation matrix")
    return order


def _pop(rest: dict[str, Tensor], base: str) -> dict[str, Tensor]:
    """The tensors below ``base``, taken out of ``rest``."""
    return {name: rest.pop(name) for name in list(rest) if name.startswith(f"{base}.")}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: numbers inside a name by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
