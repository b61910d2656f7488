"""Parts of engines and of their cooling: an axial fan, a spark plug."""

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    BRASS,
    CERAMIC,
    RED,
    STEEL,
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
    turned,
)


def _label(p: Points) -> Values:
    """Weight 0..1 [N] of the print on a fan's label: a ring, a bar and two lines."""
    x, y = p[0], p[1]
    ring = np.abs(length(p[:2]) - 0.235) - 0.012
    bar = rectangle(x, y - 0.06, 0.15, 0.05)
    lines = rectangle(x, np.abs(y + 0.09) - 0.03, 0.14, 0.012)
    return printed(np.minimum(ring, np.minimum(bar, lines)))


def cooling_fan(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A black axial fan of seven blades in its frame. QS: a blade broken off, in part or whole; WP: another
    label; BX: a blade bent upwards."""
    blades, top = 7, 0.44
    frame_black, gray = (
        jitter(BLACK, rng),
        jitter(Material((0.24, 0.25, 0.27), roughness=0.38, grain=0.02), rng),
    )
    label = jitter(WHITE, rng)
    spin = float(rng.uniform(-180, 180))
    broken = bent = -1
    stump, lift = 0.80, 0.0
    if fault is not None:
        blade = int(fault.rng.integers(blades))
        if fault.kind == "QS":
            broken, stump = blade, scale_by_severity(fault, 0.68, 0.40)
        elif fault.kind == "WP":
            label = substitute_material(fault, label, (YELLOW, RED, BLUE)[int(fault.rng.integers(3))])
        else:
            bent, lift = blade, scale_by_severity(fault, 0.08, 0.22)
    label = Material(label.color, roughness=0.5, grain=0.01, pattern=_label, pattern_color=(0.08, 0.12, 0.30))

    def frame(p: Points) -> Values:
        x, y, z = np.abs(p[0]), np.abs(p[1]), p[2]
        r = length(p[:2])
        hole = np.sqrt((x - 0.80) ** 2 + (y - 0.80) ** 2)
        body = extrude(rectangle(x, y, 0.95, 0.95, 0.10), z, 0.0, top, 0.02)
        waist = np.maximum(np.maximum(np.abs(z - top / 2) - 0.13, 0.93 - r), 0.14 - hole)
        body = smooth_max(body, -waist, 0.015)
        body = smooth_max(body, -np.minimum(r - 0.865, hole - 0.075), 0.015)
        plate = extrude(r - 0.36, z, 0.0, 0.05, 0.01)
        radius, turn, _ = sectors(turned(p, 45.0), 4)
        strut = np.maximum(np.abs(radius * np.sin(turn)) - 0.035, np.abs(z - 0.03) - 0.03)
        strut = np.maximum(strut, np.maximum(radius - 0.89, 0.3 - radius))
        result: Values = np.minimum(body, np.minimum(plate, strut))
        return result

    def rotor(p: Points) -> Values:
        r = length(p[:2])
        # Swept blades: the turn grows with the radius.
        back = 0.55 * (np.clip(r, 0.34, 0.80) - 0.34) + np.radians(spin)
        c, s = np.cos(back), np.sin(back)
        q = np.stack([c * p[0] + s * p[1], c * p[1] - s * p[0], p[2]]).astype(np.float32)
        step = TAU / blades
        radius, local, which = sectors(q, blades)
        result: Values = np.full(p.shape[1], 9.0, np.float32)
        other = np.where(local > 0, 1, -1)
        beyond: Values = local - other.astype(np.float32) * np.float32(step)
        for turn, number in ((local, which), (beyond, (which + other) % blades)):
            height = p[2] - np.float32(0.22) - np.float32(0.40) * turn
            if lift:
                rise = np.clip((radius - 0.40) * 3.0, 0, 1)
                height = height - np.where(number == bent, np.float32(lift), np.float32(0)) * rise
            reach = np.where(number == broken, np.float32(stump), np.float32(0.80))
            slab = 0.62 * np.abs(height) - 0.013
            edge: Values = np.abs(turn) - np.float32(0.37)
            side = radius * edge
            ends: Values = np.maximum(radius - reach, 0.30 - radius)
            blade = smooth_max(smooth_max(slab, side, 0.01), ends, 0.01)
            result = np.minimum(result, blade)
        hub = extrude(r - 0.34, p[2], 0.06, top - 0.02, 0.03)
        rotor_distance: Values = np.minimum(np.float32(0.80) * result, hub)
        return rotor_distance

    def sticker(p: Points) -> Values:
        return extrude(length(p[:2]) - 0.27, p[2], top - 0.06, top - 0.012, 0.003)

    components = (
        Component("frame", frame, frame_black),
        Component("rotor", rotor, gray),
        Component("label", sticker, label),
    )
    return Part(components, radius=1.05, height=0.56, table=(0.68, 0.68, 0.66))


def _brand(p: Points) -> Values:
    """Weight 0..1 [N] of the band of print round a spark plug's insulator."""
    bars = 0.02 * (0.1 - np.sin(p[0] * 60.0) * np.sin((p[1] + p[2]) * 26.0))
    return printed(np.maximum(bars, np.abs(p[0] - 0.30) - 0.10))


def spark_plug(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A spark plug lying on its side. QS: the earth electrode's hook, the sealing ring or the terminal nut
    missing; WP: an insulator of another color; BX: a bent terminal or hook."""
    axis = 0.40
    shell, ring_metal, nut_metal = jitter(ZINC, rng), jitter(BRASS, rng), jitter(STEEL, rng)
    ceramic = jitter(CERAMIC, rng)
    gone, hook_bend, nut_bend = "", 0.0, 0.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_by_severity(fault, ("hook", "ring", "nut"))
        elif fault.kind == "WP":
            other = (Material((0.60, 0.36, 0.26), roughness=0.3), BLACK, BLUE)[int(fault.rng.integers(3))]
            ceramic = substitute_material(fault, ceramic, other)
        elif fault.rng.random() < 0.5:
            hook_bend = scale_by_severity(fault, 0.05, 0.14)
        else:
            nut_bend = float(fault.rng.choice([-1, 1])) * scale_by_severity(fault, 5.0, 16.0)
    ceramic = Material(
        ceramic.color,
        roughness=ceramic.roughness,
        grain=0.01,
        mottle=0.02,
        pattern=_brand,
        pattern_color=(0.15, 0.25, 0.55),
    )

    def across(p: Points) -> Values:
        result: Values = np.sqrt(p[1] ** 2 + (p[2] - np.float32(axis)) ** 2)
        return result

    def body(p: Points) -> Values:
        x, r = p[0], across(p)
        nut = extrude(hexagon(p[1], p[2] - axis, 0.39), x, -0.26, 0.06, 0.015)
        nut = smooth_max(nut, 0.6 * (r - 0.42) + 0.8 * (np.abs(x + 0.10) - 0.145), 0.015)
        seat = extrude(r - 0.33, x, -0.36, -0.24, 0.02)
        collar = extrude(r - 0.29, x, 0.04, 0.16, 0.03)
        helix = x * 17.0 + angle(p[1], p[2] - axis) * np.float32(1 / TAU)
        ridge = np.abs(helix - np.rint(helix)) * 2.0
        thread = 0.64 * extrude(r - 0.215 + 0.035 * ridge, x, -0.84, -0.30, 0.015)
        solid = np.minimum(np.minimum(nut, seat), np.minimum(collar, thread))
        return smooth_max(solid, -np.maximum(r - 0.13, x + 0.72), 0.01)

    def hook(p: Points) -> Values:
        x, y, z = p[0], p[1], p[2] - np.float32(axis)
        arm = np.maximum(np.abs(x + 0.91) - 0.10, np.abs(z - 0.17) - 0.028)
        lean = hook_bend * np.clip((0.20 - z) * 4.0, 0.0, 1.0)
        tip = np.maximum(np.abs(x + 0.985 + lean) - 0.028, np.abs(z - 0.06) - 0.14)
        result: Values = 0.85 * np.maximum(np.minimum(arm, tip), np.abs(y) - 0.055)
        return result

    def core(p: Points) -> Values:
        return extrude(across(p) - 0.085, p[0], -0.86, -0.5, 0.03)

    def electrode(p: Points) -> Values:
        return extrude(across(p) - 0.038, p[0], -0.93, -0.6, 0.008)

    def insulator(p: Points) -> Values:
        x = p[0]
        ribs = 0.022 * np.cos((x - 0.46) * (TAU / 0.085)) * ((x > 0.44) & (x < 0.79))
        taper = 0.205 - 0.06 * np.clip((x - 0.10) * 1.6, 0.0, 1.0)
        return 0.60 * extrude(across(p) - taper - ribs, x, 0.05, 0.82, 0.03)

    def terminal(p: Points) -> Values:
        q = turned(p, nut_bend, pivot=(0.80, 0.0, 0.0)) if nut_bend else p
        r = across(q)
        waist = 0.075 - 0.025 * np.clip(1 - np.abs(q[0] - 0.93) * 25.0, 0.0, 1.0)
        return 0.6 * extrude(r - waist, q[0], 0.78, 1.04, 0.02)

    def ring(p: Points) -> Values:
        r = across(p)
        return extrude(np.abs(r - 0.28) - 0.075, p[0], -0.43, -0.355, 0.03)

    components = [
        Component("shell", body, shell),
        Component("nose", core, jitter(CERAMIC, rng)),
        Component("electrode", electrode, shell),
        Component("insulator", insulator, ceramic),
    ]
    for name, piece, metal in (
        ("hook", hook, shell),
        ("nut", terminal, nut_metal),
        ("ring", ring, ring_metal),
    ):
        if gone != name:
            components.append(Component(name, piece, metal))
    return Part(tuple(components), radius=1.08, height=0.85, table=(0.42, 0.47, 0.52))
