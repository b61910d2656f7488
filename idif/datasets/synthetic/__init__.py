"""Rendered multi-view datasets: manufactured parts under a five-camera rig, with exact masks of their
defects."""

from idif.datasets.synthetic.dataset import SynthSummary, synthesise
from idif.datasets.synthetic.rig import RIG, Camera

__all__ = ["RIG", "Camera", "SynthSummary", "synthesise"]
