"""A small circuit board with its components."""

from functools import partial

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    BRASS,
    GOLD,
    GREEN,
    RED,
    TIN,
    WHITE,
    Material,
    jitter,
)
from idif.datasets.synthetic.part_model import (
    Component,
    Fault,
    Part,
    choose_by_severity,
    scale_by_severity,
    substitute_material,
)
from idif.datasets.synthetic.sdf import (
    Points,
    Solid,
    Values,
    extrude,
    length,
    rectangle,
    smooth_max,
    turned,
)


def _box(
    cx: float, cy: float, low: float, high: float, half_x: float, half_y: float, bevel: float = 0.012
) -> Solid:
    return lambda p: extrude(rectangle(p[0] - cx, p[1] - cy, half_x, half_y, bevel), p[2], low, high, bevel)


def _tracks(p: Points) -> Values:
    """Weight 0..1 [N] of tracks, pads and the legend's frame on top of the board."""
    x, y = p[0], p[1]
    weight = np.zeros_like(x)
    for at, low, high in (
        (0.62, -0.8, 0.1),
        (0.52, -0.7, 0.2),
        (-0.60, -0.2, 0.8),
        (-0.50, -0.3, 0.7),
        (0.05, 0.25, 0.8),
    ):
        weight = np.maximum(weight, (np.abs(y - at) < 0.018) & (x > low) & (x < high))
    for at, low, high in ((-0.80, -0.5, 0.6), (0.30, -0.6, 0.5), (0.38, -0.5, 0.4), (0.86, -0.4, 0.5)):
        weight = np.maximum(weight, (np.abs(x - at) < 0.018) & (y > low) & (y < high))
    result: Values = weight.astype(np.float32) * np.float32(0.55)
    return result


def circuit_board(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A board with a chip, two capacitors, a pin header, a connector and resistors. QS: a component missing;
    WP: a wrong capacitor or connector; BX: a capacitor leaning, or a bent pin."""
    base = 0.10
    mask = jitter(
        Material(
            (0.07, 0.36, 0.20), roughness=0.38, grain=0.02, pattern=_tracks, pattern_color=(0.35, 0.62, 0.36)
        ),
        rng,
    )
    black, tin, white = jitter(BLACK, rng), jitter(TIN, rng), jitter(WHITE, rng)
    sleeve, gold = jitter(Material((0.10, 0.11, 0.20), roughness=0.30, grain=0.01), rng), jitter(GOLD, rng)
    gone, lean, way, pin, pin_lean = "", 0.0, 0.0, None, 0.0
    cap_color, plug_color = sleeve, white
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_by_severity(fault, ("resistor", "pin", "capacitor", "chip"))
        elif fault.kind == "WP":
            if fault.rng.random() < 0.5:
                cap_color = substitute_material(
                    fault, sleeve, (BRASS, RED, GREEN)[int(fault.rng.integers(3))]
                )
            else:
                plug_color = substitute_material(fault, white, (RED, BLACK, BLUE)[int(fault.rng.integers(3))])
        elif fault.rng.random() < 0.5:
            lean, way = scale_by_severity(fault, 4, 15), float(fault.rng.uniform(0, 360))
        else:
            pin, pin_lean = (
                int(fault.rng.integers(1, 5)),
                float(fault.rng.choice([-1, 1])) * scale_by_severity(fault, 9, 30),
            )

    def board(p: Points) -> Values:
        plate = extrude(rectangle(p[0], p[1], 0.95, 0.74, 0.05), p[2], 0.0, base, 0.012)
        hole = np.sqrt((np.abs(p[0]) - 0.84) ** 2 + (np.abs(p[1]) - 0.63) ** 2) - 0.055
        return smooth_max(plate, -hole, 0.01)

    def pads(p: Points) -> Values:
        ring = np.sqrt((np.abs(p[0]) - 0.84) ** 2 + (np.abs(p[1]) - 0.63) ** 2)
        return extrude(np.maximum(ring - 0.09, 0.057 - ring), p[2], base - 0.02, base + 0.006, 0.003)

    chip = _box(-0.22, 0.10, base + 0.04, base + 0.19, 0.30, 0.22, 0.02)

    def chip_body(p: Points) -> Values:
        dot = length(np.stack([p[0] + 0.44, p[1] + 0.02, p[2] - np.float32(base + 0.20)])) - 0.035
        return smooth_max(chip(p), -dot, 0.006)

    def legs(p: Points) -> Values:
        x, y, z = p[0] + np.float32(0.22), np.abs(p[1] - np.float32(0.10)), p[2] - np.float32(base)
        local = x - np.clip(np.rint(x * (1 / 0.12)), -2, 2) * 0.12
        shoulder = np.maximum(np.abs(y - 0.25) - 0.04, np.abs(z - 0.10) - 0.018)
        shin = np.maximum(np.abs(y - 0.28) - 0.018, np.abs(z - 0.06) - 0.06)
        foot = np.maximum(np.abs(y - 0.31) - 0.045, np.abs(z - 0.012) - 0.014)
        result: Values = np.maximum(np.abs(local) - 0.028, np.minimum(np.minimum(shoulder, shin), foot))
        return result

    def can(p: Points, x: float, y: float, tilt: float) -> Values:
        q = np.stack([p[0] - np.float32(x), p[1] - np.float32(y), p[2]])
        if tilt:
            q = turned(turned(turned(q, way), tilt, axis=0, pivot=(0.0, 0.0, base)), -way)
        return extrude(length(q[:2]) - 0.15, q[2], base, base + 0.40, 0.03)

    def tops(p: Points, x: float, y: float, tilt: float) -> Values:
        q = np.stack([p[0] - np.float32(x), p[1] - np.float32(y), p[2]])
        if tilt:
            q = turned(turned(turned(q, way), tilt, axis=0, pivot=(0.0, 0.0, base)), -way)
        lid = extrude(length(q[:2]) - 0.118, q[2], base + 0.3, base + 0.406, 0.01)
        cross = np.maximum(np.minimum(np.abs(q[0]), np.abs(q[1])) - 0.012, base + 0.395 - q[2])
        result: Values = np.maximum(lid, -cross)
        return result

    def pins(p: Points) -> Values:
        number = np.clip(np.rint((p[0] + 0.30) * (1 / 0.15)), 0, 5)
        if gone == "pin":
            number = np.where(number == 2, np.where(p[0] < 0.0, 1, 3), number)
        x, z = p[0] + 0.30 - number * 0.15, p[2] - base
        if pin is not None:
            x = x - np.where(number == pin, float(np.tan(np.radians(pin_lean))) * np.maximum(z - 0.12, 0), 0)
        square = np.maximum(np.abs(x), np.abs(p[1] + 0.42)) - 0.028
        result: Values = np.maximum(square, np.maximum(z - 0.46, 0.02 - z)) * 0.85
        return result

    def plug(p: Points) -> Values:
        body = _box(0.68, 0.02, base, base + 0.30, 0.15, 0.32)(p)
        cavity = extrude(
            rectangle(p[0] - 0.68, p[1] - 0.02, 0.105, 0.275, 0.01), p[2], base + 0.06, base + 1, 0.01
        )
        notch = np.maximum(np.abs(p[1] - 0.02) - 0.10, np.maximum(0.74 - p[0], base + 0.16 - p[2]))
        return smooth_max(smooth_max(body, -cavity, 0.01), -notch, 0.01)

    def contacts(p: Points) -> Values:
        y = p[1] - 0.02
        local = y - np.clip(np.rint(y * (1 / 0.16)), -1, 1) * 0.16
        result: Values = np.maximum(
            np.maximum(np.abs(p[0] - 0.68), np.abs(local)) - 0.025, np.abs(p[2] - base - 0.12) - 0.12
        )
        return result

    def resistors(p: Points, grow: float) -> Values:
        row = np.clip(np.rint((p[1] + 0.15) * (1 / 0.17)), -1, 0 if gone == "resistor" else 1)
        x, y = p[0] + 0.66, p[1] + 0.15 - row * 0.17
        return extrude(
            rectangle(x, y, 0.085 + grow, 0.05 + grow, 0.008), p[2], base, base + 0.07 + grow, 0.008
        )

    def resistor_ends(p: Points) -> Values:
        result: Values = np.maximum(resistors(p, 0.004), 0.055 - np.abs(p[0] + 0.66))
        return result

    cans = ((-0.62, 0.42, False), (0.33, 0.47, True))
    components = [Component("board", board, mask), Component("pads", pads, gold)]
    if gone != "chip":
        components += [Component("chip", chip_body, black), Component("legs", legs, tin)]
    for number, (x, y, faulty) in enumerate(cans):
        if faulty and gone == "capacitor":
            continue
        tilt = lean if faulty else 0.0
        color = cap_color if faulty else sleeve
        components += [
            Component(f"can {number}", partial(can, x=x, y=y, tilt=tilt), color),
            Component(f"lid {number}", partial(tops, x=x, y=y, tilt=tilt), tin),
        ]
    components += [
        Component("header", _box(0.075, -0.42, base, base + 0.13, 0.46, 0.075), black),
        Component("pins", pins, gold),
        Component("plug", plug, plug_color),
        Component("contacts", contacts, gold),
        Component("resistors", lambda p: resistors(p, 0.0), black),
        Component("resistor ends", resistor_ends, tin),
    ]
    return Part(tuple(components), radius=1.0, height=0.56, table=(0.72, 0.72, 0.73))
