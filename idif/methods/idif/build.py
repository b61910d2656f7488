"""IDIF from a config, with the head it names."""

import torch

from idif.config.sections import Config
from idif.data.features import FeatureSpec
from idif.methods.idif.model import IDIF
from idif.methods.idif.segmentation_head import SegmentationHead, SegmentedIDIF
from idif.methods.protocol import Method


def build_idif(config: Config, spec: FeatureSpec, view_numbers: tuple[int, ...]) -> Method:
    """IDIF for a config, the features it distils and the cameras of the data."""
    student = IDIF(config.method, spec.layers, view_numbers, config.data.rig)
    if config.method.head == "cosine":
        return student.to(memory_format=torch.channels_last)
    whole = SegmentedIDIF(student, SegmentationHead(spec.layers))
    return whole.to(memory_format=torch.channels_last)
