"""Reads checkpoints of UniAD's authors (``ckpt.pth.tar``)."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from idif.encoders.efficientnet_names import is_port, timm_names
from idif.encoders.weights_file import read_weights_file
from idif.errors import WeightsError
from idif.methods.protocol import ImportedWeights, MethodContext
from idif.methods.uniad.config import UniADConfig

RECONSTRUCTION, BACKBONE = "reconstruction.", "backbone."
"""Prefixes of the authors' two modules with weights; their neck has none."""

_ANYWHERE = {
    "input_proj": "project_in",
    "output_proj": "project_out",
    "pos_embed.row_embed.weight": "position.rows",
    "pos_embed.col_embed.weight": "position.columns",
    "transformer.decoder.norm": "norm",
}
_LAYERS = {
    "encoder": {"self_attn": "attention.heads"},
    "decoder": {
        "self_attn": "to_memory.heads",
        "multihead_attn": "to_previous.heads",
        "learned_embed.weight": "queries",
    },
}
_BOTH = {
    "linear1": "feedforward.0",
    "linear2": "feedforward.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "norms.2",
}
"""The authors' names of parts -> ours."""


def import_weights(config: UniADConfig, context: MethodContext, path: Path) -> ImportedWeights:
    """The weights of an authors' checkpoint, or of its reconstruction module alone.

    Args:
        config: settings; not read, since the tensors' shapes tell whether they fit.
        context: with the frozen encoder, whose names the backbone's weights get.
        path: what the authors' trainer wrote, or a file of its tensors.

    Raises:
        WeightsError: the file cannot be read, or is no checkpoint of UniAD.
    """
    tensors = read_weights_file(path)
    rebuilding = _below(RECONSTRUCTION, tensors) or {
        name: tensor for name, tensor in tensors.items() if not name.startswith(BACKBONE)
    }
    if "input_proj.weight" not in rebuilding:
        raise WeightsError(
            f"{path}: expected a checkpoint of UniAD with {RECONSTRUCTION}input_proj.weight, found "
            f"{', '.join(list(tensors)[:3]) or 'nothing'}"
        )
    backbone = _below(BACKBONE, tensors)
    if backbone and is_port(backbone):
        (encoder,) = context.encoders
        backbone = timm_names(backbone, encoder.module.state_dict())
    return ImportedWeights({_renamed(name): x for name, x in rebuilding.items()}, backbone or None)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _renamed(name: str) -> str:
    """Our name of a tensor of the authors' reconstruction module; unknown ones keep theirs."""
    match = re.fullmatch(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(.+)", name)
    if match is None:
        return _replaced(name, _ANYWHERE)
    part, number, rest = match.groups()
    return f"{part}.{number}.{_replaced(rest, _LAYERS[part] | _BOTH)}"


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    """``name`` with a part at its beginning replaced."""
    for theirs, ours in parts.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name
