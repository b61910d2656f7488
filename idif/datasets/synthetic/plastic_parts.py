"""Parts of plastic: a terminal block, a ribbed bottle cap, a small circuit board."""

import numpy as np

from idif.datasets.synthetic.fields import (
    TAU,
    Points,
    Solid,
    Values,
    extrude,
    length,
    rectangle,
    sectors,
    smooth_max,
    turned,
)
from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    BRASS,
    GOLD,
    GREEN,
    ORANGE,
    RED,
    TIN,
    WHITE,
    ZINC,
    Material,
    jitter,
)
from idif.datasets.synthetic.model import Component, Fault, Part, between


def terminal_block(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A green three-pole terminal block. QS: a screw missing; WP: a screw of another metal or a blocked wire entry; BX: a
    screw standing proud and askew."""
    poles, pitch, top = 3, 0.56, 0.86
    green, screw_metal, clamp_metal = jitter(GREEN, rng), jitter(ZINC, rng), jitter(TIN, rng)
    slots = [float(angle) for angle in rng.uniform(-70, 70, poles)]
    where = [(number - (poles - 1) / 2) * pitch for number in range(poles)]
    gone = odd = proud = blocked = None
    odd_metal: Material = screw_metal
    if fault is not None:
        pole = int(fault.rng.integers(poles))
        if fault.kind == "QS":
            gone = pole
        elif fault.kind == "BX":
            proud = pole
        elif fault.rng.random() < 0.35:
            blocked = pole
        else:
            odd, odd_metal = pole, jitter(BLACK if fault.severity > 0.6 else BRASS, fault.rng)

    def nearest(x: Values, absent: int | None = None) -> Values:
        number = np.clip(np.rint(x * (1 / pitch) + (poles - 1) / 2), 0, poles - 1)
        local: Values = x - (number - (poles - 1) / 2) * pitch
        if absent is not None:
            local = np.where(number == absent, np.float32(0.3), local)
        return local

    def housing(p: Points) -> Values:
        x, y, z = p
        body = extrude(rectangle(x, y, 0.86, 0.52, 0.03), z, 0.0, top, 0.03)
        body = smooth_max(body, 0.6 * (z - top) - 0.8 * (y + 0.20), 0.03)
        local = nearest(x)
        well = extrude(np.sqrt(local**2 + (y - 0.10) ** 2) - 0.19, z, 0.50, 2.0, 0.01)
        entry = rectangle(nearest(x, blocked), z - 0.27, 0.17, 0.16, 0.03)
        entry = np.maximum(entry, np.maximum(-1 - y, y + 0.12))
        rib = np.maximum(np.abs(np.abs(x) - pitch / 2) - 0.012, np.maximum(-y - 2.0, -0.50 - y + 0.02))
        back = np.maximum(np.abs(nearest(x)) - 0.05, np.maximum(0.49 - y, 0.14 - z))
        body = smooth_max(body, -well, 0.025)
        body = smooth_max(body, -entry, 0.025)
        body = np.maximum(body, -np.maximum(rib, np.maximum(z - 2, 0.60 - z)))
        return smooth_max(body, -back, 0.02)

    def screw(p: Points, pole: int, height: float, tilt: float) -> Values:
        q = np.stack([p[0] - np.float32(where[pole]), p[1] - np.float32(0.10), p[2]])
        if tilt:
            q = turned(q, tilt, axis=0, pivot=(0.0, 0.0, 0.5))
        head = extrude(length(q[:2]) - 0.165, q[2], 0.30, height, 0.025)
        turn = turned(q, slots[pole])
        slot = np.maximum(np.abs(turn[0]) - 0.028, height - 0.07 - q[2])
        return smooth_max(head, -slot, 0.01)

    def screws(p: Points) -> Values:
        result = np.full(p.shape[1], 9.0, np.float32)
        for pole in range(poles):
            if pole not in (gone, odd):
                raised = pole == proud and fault is not None
                height = 0.68 + (between(fault, 0.10, 0.20) if raised and fault is not None else 0.0)
                result = np.minimum(result, screw(p, pole, height, 9.0 if raised else 0.0))
        return result

    def clamps(p: Points) -> Values:
        local = nearest(p[0])
        return extrude(rectangle(local, p[2] - 0.27, 0.15, 0.14), p[1], -0.30, 0.0, 0.01)

    components = [
        Component("housing", housing, green),
        Component("screws", screws, screw_metal),
        Component("clamps", clamps, clamp_metal),
    ]
    if odd is not None:
        pole = odd
        components.append(Component("odd screw", lambda p: screw(p, pole, 0.68, 0.0), odd_metal))
    return Part(tuple(components), radius=1.0, height=top, table=(0.70, 0.69, 0.66))


def bottle_cap(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A ribbed blue screw cap with a tamper band. QS: a piece of the band is missing; WP: a band of another colour; BX: the
    band hangs askew."""
    ribs, top = 40, 0.62
    blue, band_colour = jitter(BLUE, rng), jitter(WHITE, rng)
    gap = lean = way = 0.0
    if fault is not None:
        way = float(fault.rng.uniform(-180, 180))
        if fault.kind == "QS":
            gap = between(fault, 0.13, 0.38)
        elif fault.kind == "WP":
            band_colour = jitter((RED, ORANGE, BLACK)[int(fault.rng.integers(3))], fault.rng)
        else:
            lean = between(fault, 2.2, 4.5)

    def cap(p: Points) -> Values:
        r, local, _ = sectors(p, ribs)
        side = r - 0.86 - 0.026 * np.cos(local * ribs) * np.clip((top - 0.06 - p[2]) * 12, 0, 1)
        body = extrude(side * 0.9, p[2], 0.19, top, 0.07)
        ring = extrude(np.abs(r - 0.70) - 0.035, p[2], top - 0.05, top + 0.03, 0.02)
        dish = extrude(r - 0.64, p[2], top - 0.035, top + 1, 0.02)
        body = smooth_max(body, -dish, 0.03)
        # An arrow that turns and three bars, as moulded into such caps.
        x, y, _ = p
        bow = np.maximum(np.abs(length(p[:2]) - 0.42) - 0.045, -y - 0.05)
        tip = np.maximum(np.maximum(0.8 * np.abs(x - 0.42) + 0.6 * (-y) - 0.13, y + 0.04), -y - 0.3)
        bars = np.maximum(np.abs(np.abs(x + 0.06) - 0.12) - 0.035, np.abs(y + 0.02) - 0.17)
        sign = np.minimum(np.minimum(bow, tip), bars)
        relief = extrude(sign, p[2], top - 0.06, top - 0.004, 0.012)
        return np.minimum(np.minimum(body, ring), relief)

    def band(p: Points) -> Values:
        q = p
        if lean:
            q = turned(turned(turned(p, way), lean, axis=0, pivot=(0.0, 0.88, 0.1)), -way)
        r, local, _ = sectors(q, 20)
        solid = extrude(np.abs(r - 0.845) - 0.05, q[2], 0.0, 0.145, 0.015)
        bridge = np.maximum(
            np.maximum(np.abs(r * local) - 0.03, np.abs(r - 0.84) - 0.03), np.abs(q[2] - 0.16) - 0.06
        )
        solid = np.minimum(solid, bridge)
        if gap:
            c = turned(p, way)
            wedge = np.maximum(np.abs(c[1]) - gap * c[0], -c[0])
            solid = np.maximum(solid, -wedge * 0.9)
        return solid

    return Part(
        (Component("cap", cap, blue), Component("band", band, band_colour)),
        radius=0.94,
        height=top + 0.03,
        table=(0.62, 0.61, 0.60),
    )


def _box(
    cx: float, cy: float, low: float, high: float, half_x: float, half_y: float, bevel: float = 0.012
) -> Solid:
    return lambda p: extrude(rectangle(p[0] - cx, p[1] - cy, half_x, half_y, bevel), p[2], low, high, bevel)


def _tracks(p: Points) -> Values:
    """Weight 0..1 [N] of tracks, pads and the legend's frame on the board's top."""
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
    return weight.astype(np.float32) * np.float32(0.55)


def circuit_board(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A board with a chip, two capacitors, a pin header, a connector and resistors. QS: a component missing; WP: a wrong
    capacitor or connector; BX: a capacitor leaning, or a bent pin."""
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
    cap_colour, plug_colour = sleeve, white
    if fault is not None:
        if fault.kind == "QS":
            gone = str(fault.rng.choice(["capacitor", "resistor", "pin", "chip"]))
        elif fault.kind == "WP":
            if fault.rng.random() < 0.5:
                cap_colour = jitter((BRASS, RED, GREEN)[int(fault.rng.integers(3))], fault.rng)
            else:
                plug_colour = jitter((RED, BLACK, BLUE)[int(fault.rng.integers(3))], fault.rng)
        elif fault.rng.random() < 0.5:
            lean, way = between(fault, 6, 14), float(fault.rng.uniform(0, 360))
        else:
            pin, pin_lean = (
                int(fault.rng.integers(1, 5)),
                float(fault.rng.choice([-1, 1])) * between(fault, 12, 28),
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
        return np.maximum(np.abs(local) - 0.028, np.minimum(np.minimum(shoulder, shin), foot))

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
        return np.maximum(lid, -cross)

    def pins(p: Points) -> Values:
        number = np.clip(np.rint((p[0] + 0.30) * (1 / 0.15)), 0, 5)
        if gone == "pin":
            number = np.where(number == 2, np.where(p[0] < 0.0, 1, 3), number)
        x, z = p[0] + 0.30 - number * 0.15, p[2] - base
        if pin is not None:
            x = x - np.where(number == pin, float(np.tan(np.radians(pin_lean))) * np.maximum(z - 0.12, 0), 0)
        square = np.maximum(np.abs(x), np.abs(p[1] + 0.42)) - 0.028
        return np.maximum(square, np.maximum(z - 0.46, 0.02 - z)) * 0.85

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
        return np.maximum(
            np.maximum(np.abs(p[0] - 0.68), np.abs(local)) - 0.025, np.abs(p[2] - base - 0.12) - 0.12
        )

    def resistors(p: Points, grow: float) -> Values:
        row = np.clip(np.rint((p[1] + 0.15) * (1 / 0.17)), -1, 0 if gone == "resistor" else 1)
        x, y = p[0] + 0.66, p[1] + 0.15 - row * 0.17
        return extrude(
            rectangle(x, y, 0.085 + grow, 0.05 + grow, 0.008), p[2], base, base + 0.07 + grow, 0.008
        )

    def resistor_ends(p: Points) -> Values:
        return np.maximum(resistors(p, 0.004), 0.055 - np.abs(p[0] + 0.66))

    cans = ((-0.62, 0.42, False), (0.33, 0.47, True))
    components = [Component("board", board, mask), Component("pads", pads, gold)]
    if gone != "chip":
        components += [Component("chip", chip_body, black), Component("legs", legs, tin)]
    for number, (x, y, faulty) in enumerate(cans):
        if faulty and gone == "capacitor":
            continue
        tilt = lean if faulty else 0.0
        colour = cap_colour if faulty else sleeve
        components += [
            Component(f"can {number}", lambda p, x=x, y=y, t=tilt: can(p, x, y, t), colour),
            Component(f"lid {number}", lambda p, x=x, y=y, t=tilt: tops(p, x, y, t), tin),
        ]
    components += [
        Component("header", _box(0.075, -0.42, base, base + 0.13, 0.46, 0.075), black),
        Component("pins", pins, gold),
        Component("plug", plug, plug_colour),
        Component("contacts", contacts, gold),
        Component("resistors", lambda p: resistors(p, 0.0), black),
        Component("resistor ends", resistor_ends, tin),
    ]
    return Part(tuple(components), radius=1.0, height=0.56, table=(0.72, 0.72, 0.73))
