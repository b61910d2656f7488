"""Parts of machines and buildings: a compression spring, a ball valve, a door hinge."""

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    BRASS,
    GREEN,
    ORANGE,
    RED,
    STEEL,
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
    choose_neighbors,
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
    rectangle,
    smooth_max,
    smooth_min,
    turned,
)

_WIRE = 0.07
_COIL = 0.56


def spring(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A compression spring on its black seat. QS: the end of the wire broken off; WP: a seat of another
    material; BX: the spring leaning."""
    steel, seat_black = jitter(STEEL, rng), jitter(BLACK, rng)
    steel = Material(steel.color, 1.0, 0.30, grain=0.03)
    spin = float(rng.uniform(-180, 180))
    coils, lean, way = 5.0, 0.0, 0.0
    if fault is not None:
        if fault.kind == "QS":
            coils -= scale_by_severity(fault, 0.15, 0.95)
        elif fault.kind == "WP":
            seat_black = substitute_material(
                fault, seat_black, (BLUE, ORANGE, GREEN)[int(fault.rng.integers(3))]
            )
        else:
            lean, way = scale_by_severity(fault, 0.06, 0.22), float(fault.rng.uniform(0, TAU))
    low = 0.14 + _WIRE
    # Height of the wire's middle after so many turns: the first and the last lie on their neighbors.
    turns = np.array([0.0, 1.0, 4.0, 5.0])
    heights = low + np.array([0.0, 0.14, 0.86, 1.00])

    def wire(p: Points) -> Values:
        if lean:
            rise = np.maximum(p[2] - low, 0.0)
            bend = rise * rise * np.float32(lean)
            p = np.stack([p[0] - float(np.cos(way)) * bend, p[1] - float(np.sin(way)) * bend, p[2]])
        q = turned(p, spin)
        phase = angle(q[0], q[1]) * np.float32(1 / TAU)
        r = length(q[:2]) - np.float32(_COIL)
        at = np.minimum(np.interp(q[2], heights, turns), coils).astype(np.float32)
        result: Values = np.full(p.shape[1], 9.0, np.float32)
        nearest = np.rint(at - phase)
        for number in (nearest - 1, nearest, nearest + 1):
            turn = phase + number
            rise = q[2] - np.interp(turn, turns, heights).astype(np.float32)
            on_wire = (turn >= 0) & (turn <= coils)
            result = np.minimum(result, np.where(on_wire, np.sqrt(r * r + rise * rise), np.float32(9.0)))
        for end in (0.0, coils):
            a = TAU * end
            tip = np.array([_COIL * np.cos(a), _COIL * np.sin(a), np.interp(end, turns, heights)])
            result = np.minimum(result, length(q - tip.astype(np.float32)[:, None]))
        return 0.92 * (result - np.float32(_WIRE))

    def seat(p: Points) -> Values:
        r = length(p[:2])
        plate = extrude(r - 0.90, p[2], 0.0, 0.13, 0.03)
        rim = extrude(np.abs(r - 0.84) - 0.05, p[2], 0.05, 0.26, 0.03)
        guide = extrude(r - 0.36, p[2], 0.05, 0.40, 0.05)
        hole = r - 0.20
        return smooth_max(
            np.minimum(smooth_min(plate, rim, 0.03), smooth_min(plate, guide, 0.03)), -hole, 0.02
        )

    components = (Component("seat", seat, seat_black), Component("spring", wire, steel))
    return Part(components, radius=0.95, height=1.32, table=(0.70, 0.68, 0.63))


def _along_x(p: Points, y: float, z: float) -> tuple[Values, Values, Values]:
    """Position along x, and across it, from an axis at height ``z``."""
    return p[0], p[1] - np.float32(y), p[2] - np.float32(z)


def ball_valve(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A brass ball valve with a red lever. QS: the nut, the lever's sleeve or the lever missing; WP: a sleeve
    of another color or a nut of another metal; BX: a bent lever."""
    axis = 0.36
    brass = jitter(BRASS, rng)
    brass = Material(brass.color, 1.0, brass.roughness, grain=0.03, mottle=0.06)
    steel, sleeve_red, nut_metal = jitter(ZINC, rng), jitter(RED, rng), jitter(ZINC, rng)
    open_by = float(rng.uniform(-3, 3))
    gone, lift, yaw = "", 0.0, 0.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_by_severity(fault, ("nut", "sleeve", "lever"))
        elif fault.kind == "WP":
            if fault.rng.random() < 0.35:
                nut_metal = substitute_material(fault, nut_metal, BLACK)
            else:
                color = (BLUE, YELLOW, GREEN)[int(fault.rng.integers(3))]
                sleeve_red = substitute_material(fault, sleeve_red, color)
        elif fault.rng.random() < 0.5:
            lift = float(fault.rng.choice([-0.6, 1])) * scale_by_severity(fault, 5, 17)
        else:
            yaw = float(fault.rng.choice([-1, 1])) * scale_by_severity(fault, 6, 20)

    def body(p: Points) -> Values:
        x, y, z = _along_x(p, 0.0, axis)
        across: Values = np.sqrt(y * y + z * z)
        middle = np.sqrt((0.8 * x) ** 2 + across**2) - 0.35
        pipe = extrude(across - 0.25, x, -0.80, 0.80, 0.02)
        solid = smooth_min(0.95 * middle, pipe, 0.08)
        ax = np.abs(x)
        nuts = extrude(hexagon(y, z, 0.335), ax, 0.52, 0.90, 0.015)
        along: Values = np.abs(ax - np.float32(0.71))
        chamfer = 0.6 * (across - 0.36) + 0.8 * (along - 0.18)
        solid = smooth_min(solid, smooth_max(nuts, chamfer, 0.015), 0.02)
        # The thread inside each end shows as shadowed rings.
        bore = across - (0.225 + 0.015 * np.sin(x * 95.0))
        solid = smooth_max(solid, -np.maximum(0.8 * bore, 0.45 - ax), 0.01)
        neck = extrude(length(p[:2]) - 0.15, p[2], axis + 0.2, 0.80, 0.02)
        collar = extrude(hexagon(p[0], p[1], 0.17), p[2], 0.70, 0.78, 0.01)
        return np.minimum(smooth_min(solid, neck, 0.05), collar)

    def in_lever(p: Points) -> Points:
        q = turned(p, open_by + yaw)
        return turned(q, -lift, axis=1, pivot=(0.15, 0.0, 0.86)) if lift else q

    def shape(p: Points, grow: float, start: float) -> Values:
        """The flat bar of the lever: up from the stem in a ramp, then level."""
        q = in_lever(p)
        ramp = np.clip((q[0] - np.float32(0.16)) * 5.0, 0.0, 1.0)
        height = q[2] - np.float32(0.86) - np.float32(0.14) * ramp * ramp * (3 - 2 * ramp)
        across = np.abs(height) - (0.030 + grow)
        flat = rectangle(q[0] - (start + 1.12) / 2, q[1], (1.12 - start) / 2, 0.115 + grow, 0.09)
        return 0.68 * smooth_max(flat, across, 0.02)

    def lever(p: Points) -> Values:
        return shape(p, 0.0, -0.16)

    def sleeve(p: Points) -> Values:
        return shape(p, 0.028, 0.40)

    def stem(p: Points) -> Values:
        return extrude(length(p[:2]) - 0.06, p[2], 0.75, 1.06, 0.02)

    def nut(p: Points) -> Values:
        return extrude(hexagon(p[0], p[1], 0.11), p[2], 0.885, 0.985, 0.012)

    components = [Component("body", body, brass), Component("stem", stem, steel)]
    if gone != "lever":
        components.append(Component("lever", lever, steel))
        if gone != "sleeve":
            components.append(Component("sleeve", sleeve, sleeve_red))
    if gone != "nut":
        components.append(Component("nut", nut, nut_metal))
    return Part(tuple(components), radius=1.05, height=1.07, table=(0.45, 0.49, 0.54))


def hinge(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A brass door hinge lying open, with six steel screws. QS: one to three screws missing; WP: a screw of
    another metal; BX: a leaf bent upwards."""
    brass, screw_metal = jitter(BRASS, rng), jitter(ZINC, rng)
    brass = Material(brass.color, 1.0, brass.roughness, grain=0.05, frequency=(4, 60, 30))
    crosses = [float(a) for a in rng.uniform(0, 90, 6)]
    thick, axis, knuckle = 0.10, 0.15, 0.15
    gone: tuple[int, ...] = ()
    odd: int | None = None
    odd_metal, lean, side = screw_metal, 0.0, 1.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_neighbors(fault, 6, 3)
        elif fault.kind == "WP":
            odd = int(fault.rng.integers(6))
            odd_metal = substitute_material(fault, screw_metal, BLACK if fault.rng.random() < 0.5 else BRASS)
        else:
            lean, side = scale_by_severity(fault, 0.06, 0.28), float(fault.rng.choice([-1, 1]))
    places = [(s * 0.58, y) for s in (-1.0, 1.0) for y in (-0.60, 0.0, 0.60)]

    def flat(p: Points) -> Points:
        """Points in the frame of unbent leaves."""
        if not lean:
            return p
        rise = lean * np.maximum(side * p[0] - 0.30, 0.0)
        return np.stack([p[0], p[1], p[2] - rise]).astype(np.float32)

    def leaves(p: Points) -> Values:
        q = flat(p)
        x, y, z = np.abs(q[0]), q[1], q[2]
        plate = extrude(rectangle(x - 0.50, y, 0.43, 0.90, 0.06), z, 0.0, thick, 0.015)
        for at in (-0.60, 0.0, 0.60):
            r = np.sqrt((x - 0.58) ** 2 + (y - at) ** 2)
            plate = smooth_max(plate, -(0.70 * (r - 0.085) - 0.70 * np.maximum(z - 0.02, 0.0)), 0.008)
        # Knuckles in turn belong to one leaf and the other; between them there is a slit.
        round_ = np.sqrt(q[0] ** 2 + (z - axis) ** 2)
        slit: Values = 0.012 - np.abs(np.abs(np.abs(y) - 0.36) - 0.18)
        barrel = smooth_max(extrude(round_ - knuckle, y, -0.90, 0.90, 0.012), slit, 0.008)
        tongue = extrude(np.abs(z - thick / 2) - thick / 2, x, 0.04, 0.20, 0.005)
        tongue = np.maximum(np.maximum(tongue, np.abs(y) - 0.90), slit)
        return np.float32(0.95) * np.minimum(plate, smooth_min(barrel, tongue, 0.03))

    def pin(p: Points) -> Values:
        r = np.sqrt(p[0] ** 2 + (p[2] - np.float32(axis)) ** 2)
        rod = extrude(r - 0.085, p[1], -0.95, 0.95, 0.01)
        cap = extrude(r - 0.13, np.abs(p[1]), 0.91, 0.98, 0.03)
        return np.minimum(rod, cap)

    def screw(p: Points, number: int) -> Values:
        x, y = places[number]
        q = flat(p) - np.array([x, y, 0.0], np.float32)[:, None]
        head = extrude(length(q[:2]) - 0.125, q[2], 0.01, thick + 0.006, 0.012)
        turn = turned(q, crosses[number])
        arms = np.minimum(
            np.maximum(np.abs(turn[0]) - 0.018, np.abs(turn[1]) - 0.085),
            np.maximum(np.abs(turn[1]) - 0.018, np.abs(turn[0]) - 0.085),
        )
        return 0.95 * smooth_max(head, -np.maximum(arms, 0.05 - q[2]), 0.008)

    def screws(p: Points) -> Values:
        result = np.full(p.shape[1], 9.0, np.float32)
        for number in range(6):
            if number not in gone and number != odd:
                result = np.minimum(result, screw(p, number))
        return result

    components = [
        Component("leaves", leaves, brass),
        Component("pin", pin, brass),
        Component("screws", screws, screw_metal),
    ]
    if odd is not None:
        number = odd
        components.append(Component("odd screw", lambda p: screw(p, number), odd_metal))
    return Part(tuple(components), radius=1.0, height=0.46, table=(0.50, 0.47, 0.44))
