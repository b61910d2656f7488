"""Rendered multi-view datasets: manufactured parts under a five-camera rig, with exact defect masks."""

from idif.datasets.synthetic.camera_rig import RIG, Camera
from idif.datasets.synthetic.dataset import SynthRequest, SynthSummary, synthesize

__all__ = ["RIG", "Camera", "SynthRequest", "SynthSummary", "synthesize"]
