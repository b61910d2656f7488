"""Parts of plastic: a terminal block and a ribbed bottle cap."""

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    BRASS,
    GREEN,
    ORANGE,
    RED,
    TIN,
    WHITE,
    ZINC,
    Material,
    jitter,
)
from idif.datasets.synthetic.part_model import (
    Component,
    Fault,
    Part,
    choose_neighbors,
    scale_by_severity,
    substitute_material,
)
from idif.datasets.synthetic.sdf import (
    Points,
    Values,
    extrude,
    length,
    rectangle,
    sectors,
    smooth_max,
    turned,
    wedge,
)


def terminal_block(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A green three-pole terminal block. QS: screws missing; WP: a screw of another metal or a blocked wire
    entry; BX: a screw standing proud and askew."""
    poles, pitch, top = 3, 0.56, 0.86
    green, screw_metal, clamp_metal = jitter(GREEN, rng), jitter(ZINC, rng), jitter(TIN, rng)
    slots = [float(angle) for angle in rng.uniform(-70, 70, poles)]
    where = [(number - (poles - 1) / 2) * pitch for number in range(poles)]
    gone: tuple[int, ...] = ()
    odd = proud = blocked = None
    odd_metal: Material = screw_metal
    if fault is not None:
        pole = int(fault.rng.integers(poles))
        if fault.kind == "QS":
            gone = choose_neighbors(fault, poles, poles)
        elif fault.kind == "BX":
            proud = pole
        elif fault.severity > 0.5 and fault.rng.random() < 0.5:
            blocked = pole
        else:
            odd = pole
            odd_metal = substitute_material(fault, screw_metal, BLACK if fault.rng.random() < 0.5 else BRASS)

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
        slot = np.maximum(np.abs(turn[0]) - 0.028, height - 0.08 - q[2])
        return smooth_max(head, -slot, 0.01)

    def screws(p: Points) -> Values:
        result = np.full(p.shape[1], 9.0, np.float32)
        for pole in range(poles):
            if pole not in gone and pole != odd:
                raised = pole == proud and fault is not None
                height = 0.76 + (
                    scale_by_severity(fault, 0.07, 0.20) if raised and fault is not None else 0.0
                )
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
        components.append(Component("odd screw", lambda p: screw(p, pole, 0.76, 0.0), odd_metal))
    return Part(tuple(components), radius=1.0, height=top, table=(0.70, 0.69, 0.66))


def bottle_cap(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A ribbed blue screw cap with a tamper band. QS: a piece of the band is missing; WP: a band of another
    color; BX: the band hangs askew."""
    ribs, top = 40, 0.62
    blue, band_color = jitter(BLUE, rng), jitter(WHITE, rng)
    gap = lean = way = 0.0
    if fault is not None:
        way = float(fault.rng.uniform(-180, 180))
        if fault.kind == "QS":
            gap = scale_by_severity(fault, 0.10, 0.45)
        elif fault.kind == "WP":
            band_color = substitute_material(
                fault, band_color, (RED, ORANGE, BLACK)[int(fault.rng.integers(3))]
            )
        else:
            lean = scale_by_severity(fault, 2.0, 5.0)

    def cap(p: Points) -> Values:
        r, local, _ = sectors(p, ribs)
        side = r - 0.86 - 0.026 * np.cos(local * ribs) * np.clip((top - 0.06 - p[2]) * 12, 0, 1)
        body = extrude(side * 0.65, p[2], 0.19, top, 0.07)
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
            solid = np.maximum(solid, -wedge(c, gap))
        result: Values = solid
        return result

    return Part(
        (Component("cap", cap, blue), Component("band", band, band_color)),
        radius=0.94,
        height=top + 0.03,
        table=(0.62, 0.61, 0.60),
    )
