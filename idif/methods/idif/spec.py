"""The `MethodSpec` of IDIF: how it is built, its training stages, and the textures it needs."""

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
"""Name of the student under a segmentation head: its stage's subfolder, and its submodule."""


def build_idif(config: IDIFConfig, context: MethodContext) -> Method:
    """IDIF with the head that its config names."""
    layers, perturbation = feature_layers(context.features), Perturbation.of(context)
    student = IDIF(config, layers, context.view_numbers, context.rig, perturbation)
    if config.head == "cosine":
        return to_channels_last(student)
    encoder = context.encoders[0] if context.encoders else None
    head = SegmentationHead(layers, config.pyramid)
    return to_channels_last(SegmentedIDIF(student, head, perturbation, encoder))


def to_channels_last(method: Method) -> Method:
    """Convert the weights of the 2D convolutions to channels last, in place; returns the method."""
    for parameter in method.parameters():
        if parameter.ndim == 4:
            # not `contiguous`, which leaves 1x1 weights unchanged: their strides select the kernel
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return method


def stages(config: IDIFConfig) -> tuple[Stage[IDIFConfig], ...]:
    """The student; then, with ``head: segmentation``, the head."""
    student = Stage(STUDENT, config.model_copy(update={"head": "cosine"}))
    if config.head == "cosine":
        return (student,)
    head = Stage(
        "head", config, config.head_epochs, config.head_steps, continues_in=STUDENT, runs_encoders=True
    )
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
    size, folder = request.features.image_size, request.folder
    bank = load_textures(source, size, folder, request.progress, fallback=request.fallback)
    return {"textures": bank}


def smallest() -> IDIFConfig:
    """A config for tests and the smoke test: trains in seconds."""
    voxel = VoxelConfig(depth=2, height=2, width=2, channels=16)
    # feature maps of tiny images have too few values for batch norm statistics
    return IDIFConfig(voxel=voxel, attention_heads=2, blocks=1, norm="group")


IDIF_SPEC = MethodSpec(build_idif, stages, smallest, resources=resources, label=table_3_row)
