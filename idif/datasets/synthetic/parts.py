"""The parts that can be rendered, by category."""

from idif.datasets.synthetic.metal_parts import bearing, bolt, gear

BUILDERS = {"gear": gear, "bolt": bolt, "bearing": bearing}
