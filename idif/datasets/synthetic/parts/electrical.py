"""Electric parts: an emergency stop button, a nine-pole serial connector."""

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    GOLD,
    GREEN,
    ORANGE,
    RED,
    WHITE,
    YELLOW,
    ZINC,
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
    TAU,
    Points,
    Values,
    angle,
    extrude,
    hexagon,
    length,
    printed,
    rectangle,
    sectors,
    smooth_max,
    smooth_min,
    turned,
)


def _arrows(p: Points) -> Values:
    """Weight 0..1 [N] of the three arrows round the top of an emergency stop."""
    r = length(p[:2])
    step = TAU / 3
    theta = angle(p[0], p[1])
    local = theta - np.rint(theta * (1 / step)) * step
    off = np.abs(r - 0.34)
    shaft = np.maximum(off - 0.028, 0.34 * (np.abs(local) - 0.55))
    tip = np.maximum(0.9 * (off - 0.30 * (0.80 - local)), 0.34 * (0.5 - local))
    return printed(np.maximum(np.minimum(shaft, tip), 0.8 - p[2]))


def emergency_stop(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A red emergency stop in a yellow box. QS: a lid screw, the collar or the cable gland missing; WP: a
    button of another color; BX: the button askew."""
    yellow, black, metal = jitter(YELLOW, rng), jitter(BLACK, rng), jitter(ZINC, rng)
    mushroom = jitter(Material(RED.color, roughness=0.28, grain=0.015, pattern=_arrows), rng)
    mushroom = Material(
        mushroom.color,
        roughness=mushroom.roughness,
        grain=0.015,
        pattern=_arrows,
        pattern_color=(0.90, 0.89, 0.86),
    )
    gone, lean, way = "", 0.0, 0.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_by_severity(fault, ("screw", "collar", "gland"))
        elif fault.kind == "WP":
            other = (ORANGE, GREEN, BLUE)[int(fault.rng.integers(3))]
            mushroom = substitute_material(fault, mushroom, other)
        else:
            lean, way = scale_by_severity(fault, 2.5, 9.0), float(fault.rng.uniform(0, 360))
    lid = 0.58

    def box(p: Points) -> Values:
        body = extrude(rectangle(p[0], p[1], 0.76, 0.76, 0.10), p[2], 0.0, lid, 0.035)
        seam = np.maximum(np.abs(p[2] - 0.40) - 0.012, -rectangle(p[0], p[1], 0.745, 0.745, 0.09))
        r = np.sqrt((np.abs(p[0]) - 0.61) ** 2 + (np.abs(p[1]) - 0.61) ** 2)
        wells = np.maximum(r - 0.095, 0.46 - p[2])
        return smooth_max(smooth_max(body, -seam, 0.01), -wells, 0.012)

    def screws(p: Points) -> Values:
        x, y = np.abs(p[0]) - np.float32(0.61), np.abs(p[1]) - np.float32(0.61)
        head = extrude(np.sqrt(x * x + y * y) - 0.082, p[2], 0.40, 0.535, 0.015)
        slot = np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.014, 0.50 - p[2])
        solid = smooth_max(head, -slot, 0.008)
        if gone == "screw":  # the one towards C2 and C3
            solid = np.maximum(solid, np.minimum(p[0], p[1]))
        return solid

    def gland(p: Points) -> Values:
        x, y, z = p[0], p[1] + np.float32(0.76), p[2] - np.float32(0.25)
        r = np.sqrt(x * x + z * z)
        flange = extrude(hexagon(x, z, 0.17), -y, -0.02, 0.09, 0.012)
        cap = smooth_max(extrude(r - 0.155, -y, 0.05, 0.27, 0.04), -(r - 0.075), 0.01)
        return np.minimum(flange, cap)

    def askew(p: Points) -> Points:
        if not lean:
            return p
        return turned(turned(turned(p, way), lean, axis=0, pivot=(0.0, 0.0, 0.60)), -way)

    def collar(p: Points) -> Values:
        return extrude(np.abs(length(p[:2]) - 0.40) - 0.12, p[2], lid - 0.02, lid + 0.05, 0.02)

    def stem(p: Points) -> Values:
        q = askew(p)
        return extrude(length(q[:2]) - 0.27, q[2], 0.50, 0.85, 0.02)

    def head(p: Points) -> Values:
        q = askew(p)
        r, local, _ = sectors(q, 24)
        grip = 0.010 * np.cos(local * 24) * np.clip((0.90 - q[2]) * 12, 0, 1)
        dome = length(np.stack([q[0], q[1], q[2] + np.float32(0.38)])) - 1.40
        return 0.9 * smooth_max(extrude(r - 0.545 - grip, q[2], 0.74, 1.06, 0.07), dome, 0.05)

    components = [
        Component("box", box, yellow),
        Component("screws", screws, metal),
        Component("stem", stem, black),
        Component("head", head, mushroom),
    ]
    if gone != "collar":
        components.append(Component("collar", collar, black))
    if gone != "gland":
        components.append(Component("gland", gland, black))
    return Part(tuple(components), radius=1.0, height=1.06, table=(0.55, 0.56, 0.58))


def serial_connector(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A nine-pole serial connector standing on its back. QS: a pin or a jack post missing; WP: an insert of
    another color; BX: a bent pin."""
    tin, blue, gold, black = jitter(ZINC, rng), jitter(BLUE, rng), jitter(GOLD, rng), jitter(BLACK, rng)
    gone, bent, bend = "", -1, (0.0, 0.0)
    pins = [(x * 0.15, 0.075) for x in range(-2, 3)] + [(x * 0.15 + 0.075, -0.075) for x in range(-2, 2)]
    victim = -1
    if fault is not None:
        if fault.kind == "QS":
            gone, victim = choose_by_severity(fault, ("pin", "pin", "post")), int(fault.rng.integers(9))
        elif fault.kind == "WP":
            blue = substitute_material(fault, blue, (BLACK, GREEN, WHITE)[int(fault.rng.integers(3))])
        else:
            bent, a = int(fault.rng.integers(9)), float(fault.rng.uniform(0, TAU))
            far = scale_by_severity(fault, 0.18, 0.45)
            bend = (far * float(np.cos(a)), far * float(np.sin(a)))

    def d_shape(x: Values, y: Values, grow: float) -> Values:
        """A trapezium with rounded corners, wider on the side of the five pins."""
        half = 0.46 + 0.16 * y
        slanted = 0.985 * (np.abs(x) - half)
        level: Values = np.abs(y) - np.float32(0.185)
        return smooth_max(slanted, level, 0.12) - np.float32(grow)

    def flange(p: Points) -> Values:
        plate = extrude(rectangle(p[0], p[1], 0.97, 0.34, 0.05), p[2], 0.30, 0.38, 0.02)
        rim = extrude(d_shape(p[0], p[1], 0.06), p[2], 0.34, 0.76, 0.012)
        rim = smooth_max(rim, -np.maximum(d_shape(p[0], p[1], 0.025), 0.40 - p[2]), 0.01)
        return smooth_min(plate, rim, 0.03)

    def back(p: Points) -> Values:
        return extrude(rectangle(p[0], p[1], 0.58, 0.30, 0.03), p[2], 0.0, 0.32, 0.02)

    def insert(p: Points) -> Values:
        return extrude(d_shape(p[0], p[1], 0.03), p[2], 0.34, 0.46, 0.01)

    def contacts(p: Points) -> Values:
        result = np.full(p.shape[1], 9.0, np.float32)
        for number, (x, y) in enumerate(pins):
            if gone == "pin" and number == victim:
                continue
            dx, dy = p[0] - np.float32(x), p[1] - np.float32(y)
            if number == bent:
                rise = np.maximum(p[2] - np.float32(0.47), 0.0)
                dx, dy = dx - bend[0] * rise, dy - bend[1] * rise
            pin = extrude(np.sqrt(dx * dx + dy * dy) - 0.034, p[2], 0.40, 0.70, 0.025)
            result = np.minimum(result, pin)
        return 0.9 * result

    def posts(p: Points) -> Values:
        x = np.abs(p[0]) - np.float32(0.78)
        if gone == "post":
            x = np.where(p[0] > 0, 0.9, x).astype(np.float32)
        r = np.sqrt(x * x + p[1] ** 2)
        post = extrude(hexagon(p[1], x, 0.12), p[2], 0.36, 0.62, 0.015)
        return smooth_max(post, -np.maximum(r - 0.065, 0.45 - p[2]), 0.01)

    components = (
        Component("back", back, black),
        Component("flange", flange, tin),
        Component("insert", insert, blue),
        Component("pins", contacts, gold),
        Component("posts", posts, tin),
    )
    return Part(components, radius=1.0, height=0.77, table=(0.66, 0.64, 0.60))
