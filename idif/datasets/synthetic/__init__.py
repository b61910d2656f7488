"""Rendered multi-view datasets: manufactured parts under a five-camera rig, with exact masks of their
defects."""

from idif.datasets.synthetic.camera_rig import RIG, Camera
from idif.datasets.synthetic.dataset import SynthSummary, synthesise

__all__ = ["RIG", "Camera", "SynthSummary", "synthesise"]
