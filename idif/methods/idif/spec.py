"""IDIF as the engine sees it: how it is built, its stages, and the textures it needs."""

from pathlib import Path
from typing import Any, Literal

import torch

from idif.corruption.textures import DTD_URL, load_textures
from idif.errors import ConfigError
from idif.methods.idif.ablations import table_3_row
from idif.methods.idif.config import IDIFConfig, VoxelConfig
from idif.methods.idif.layers import feature_layers
from idif.methods.idif.model import IDIF
from idif.methods.idif.perturbation import Perturbation
from idif.methods.idif.segmentation_head import SegmentationHead, SegmentedIDIF
from idif.methods.protocol import Method, MethodContext, MethodSpec, ResourceRequest, Stage

STUDENT = "student"
"""The student that a segmentation head is trained on: its folder below the model's own, its name in it."""


def build_idif(config: IDIFConfig, context: MethodContext) -> Method:
    """IDIF with the head that its config names."""
    layers, perturbation = feature_layers(context.features), Perturbation.of(context)
    student = IDIF(config, layers, context.view_numbers, context.rig, perturbation)
    if config.head == "cosine":
        return to_channels_last(student)
    encoder = context.encoders[0] if context.encoders else None
    return to_channels_last(SegmentedIDIF(student, SegmentationHead(layers), perturbation, encoder))


def to_channels_last(method: Method) -> Method:
    """The same method, the weights of its 2D convolutions laid out channels last."""
    for parameter in method.parameters():
        if parameter.ndim == 4:
            # not `contiguous`, which leaves 1x1 weights as they are: their strides choose the kernel
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return method


def stages(config: IDIFConfig) -> tuple[Stage[IDIFConfig], ...]:
    """The student; then, with ``head: segmentation``, the head that learns from it."""
    student = Stage(STUDENT, config.model_copy(update={"head": "cosine"}))
    if config.head == "cosine":
        return (student,)
    head = Stage("head", config, config.head_epochs, continues_in=STUDENT, runs_encoders=True)
    return student, head


def resources(config: IDIFConfig, request: ResourceRequest) -> dict[str, Any]:
    """The texture bank.

    Raises:
        ConfigError: ``corruption.textures`` is not set. DatasetError: the folder cannot be used.
    """
    wanted = request.corruption.textures
    if wanted is None:
        raise ConfigError(
            "corruption.textures: expected the folder of the Describable Textures Dataset "
            f"({DTD_URL}), or 'procedural' for generated textures; got nothing"
        )
    assert request.features.image_size is not None, "IDIF needs images"
    source: Path | Literal["procedural"] = "procedural" if wanted == "procedural" else Path(wanted)
    return {"textures": load_textures(source, request.features.image_size, request.folder, request.progress)}


def smallest() -> IDIFConfig:
    """A config that trains in seconds."""
    voxel = VoxelConfig(depth=2, height=2, width=2, channels=16)
    # tiny images leave a batch norm too few values to count
    return IDIFConfig(voxel=voxel, attention_heads=2, blocks=1, norm="group")


IDIF_SPEC = MethodSpec(build_idif, stages, resources, table_3_row, smallest)
