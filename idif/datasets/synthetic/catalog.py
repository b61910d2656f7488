"""The parts that can be rendered, by category."""

from collections.abc import Callable

import numpy as np

from idif.datasets.synthetic.part_model import Fault, Part
from idif.datasets.synthetic.parts.circuit_board import circuit_board
from idif.datasets.synthetic.parts.electrical import (
    emergency_stop,
    serial_connector,
)
from idif.datasets.synthetic.parts.engine import cooling_fan, spark_plug
from idif.datasets.synthetic.parts.hardware import ball_valve, hinge, spring
from idif.datasets.synthetic.parts.metal import bearing, bolt, gear
from idif.datasets.synthetic.parts.packaging import battery_holder, blister_pack
from idif.datasets.synthetic.parts.plastic import bottle_cap, terminal_block

Builder = Callable[[np.random.Generator, Fault | None], Part]
"""Builds one part: the generator determines the normal variation, the fault (if any) the defect."""

BUILDERS: dict[str, Builder] = {
    "gear": gear,
    "terminal_block": terminal_block,
    "circuit_board": circuit_board,
    "bolt": bolt,
    "bottle_cap": bottle_cap,
    "bearing": bearing,
    "cooling_fan": cooling_fan,
    "emergency_stop": emergency_stop,
    "ball_valve": ball_valve,
    "blister_pack": blister_pack,
    "spring": spring,
    "serial_connector": serial_connector,
    "hinge": hinge,
    "battery_holder": battery_holder,
    "spark_plug": spark_plug,
}
"""Category -> builder, in the order in which ``--categories N`` takes them: the first three differ most."""
