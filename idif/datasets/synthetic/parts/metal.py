"""Parts of metal: a spur gear, a bolt with washer and nut, a ball bearing."""

import numpy as np

from idif.datasets.synthetic.materials import BLACK, BRASS, RED, STEEL, ZINC, Material, jitter
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
    sectors,
    smooth_max,
    smooth_min,
    turned,
    wedge,
)


def gear(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A steel spur gear with a bronze bush. QS: a tooth broken off; WP: another bush; BX: a bent tooth."""
    teeth, root, tip, top = 20, 0.80, 0.99, 0.36
    steel, bush = jitter(STEEL, rng), jitter(BRASS, rng)
    broken = bent = None
    stump, lean = root, 0.0
    if fault is not None:
        tooth = int(fault.rng.integers(teeth))
        if fault.kind == "QS":
            broken, stump = tooth, scale_by_severity(fault, 0.925, 0.83)
        elif fault.kind == "BX":
            bent, lean = tooth, float(fault.rng.choice([-1, 1])) * scale_by_severity(fault, 0.04, 0.08)
        else:
            bush = substitute_material(fault, bush, ZINC if fault.rng.random() < 0.5 else BLACK)

    def body(p: Points) -> Values:
        r, local, which = sectors(p, teeth)
        if bent is not None:
            # The lean fades towards the neighboring sectors, so that the field stays continuous.
            fade: Values = np.clip((1 - np.abs(local) * (teeth / np.pi)) * (1 / 0.35), 0, 1)
            rise: Values = np.clip((r - root) * (1 / 0.19), 0, 1)
            local -= np.where(which == bent, np.float32(lean), np.float32(0)) * fade * rise
        limit = np.where(which == broken, np.float32(stump), np.float32(tip)) if broken is not None else tip
        across: Values = r * np.abs(local)
        flank = np.float32(0.94) * (across - 0.070 + 0.36 * (r - 0.9))
        profile = smooth_min(r - root, smooth_max(flank, r - limit, 0.03), 0.04)
        solid = extrude(profile, p[2], 0.0, top, 0.018)
        groove = extrude(np.abs(r - 0.525) - 0.175, p[2], top - 0.07, top + 1, 0.02)
        solid = smooth_max(solid, -groove, 0.02)
        radius, turn, _ = sectors(p, 6)
        hole = np.sqrt((radius * np.cos(turn) - 0.525) ** 2 + (radius * np.sin(turn)) ** 2) - 0.115
        return smooth_max(smooth_max(solid, -hole, 0.025), 0.27 - r, 0.01)

    def hub(p: Points) -> Values:
        r = length(p[:2])
        ring = extrude(np.abs(r - 0.22) - 0.075, p[2], 0.0, 0.50, 0.02)
        key = rectangle(p[0] - 0.17, p[1], 0.07, 0.045)
        return smooth_max(ring, -key, 0.015)

    return Part(
        components=(
            Component("gear", body, steel),
            Component("bush", hub, bush),
        ),
        radius=1.0,
        height=0.5,
        table=(0.58, 0.60, 0.62),
    )


def bolt(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A flange bolt on its head, with a black washer and a brass nut. QS: a piece of the washer, the washer
    or the nut missing; WP: a nut or washer of another material; BX: a bent shank."""
    zinc, nut_metal, washer_black = jitter(ZINC, rng), jitter(BRASS, rng), jitter(BLACK, rng)
    level = 0.66 + float(rng.uniform(-0.015, 0.015))
    spin = float(rng.uniform(-15, 15))
    has_nut = has_washer = True
    gap = 0.0
    lean = 0.0
    way = 0.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_by_severity(fault, ("piece", "washer", "nut"))
            has_nut, has_washer = gone != "nut", gone != "washer"
            if gone == "piece":
                gap, way = scale_by_severity(fault, 0.25, 0.7), float(fault.rng.uniform(0, TAU))
        elif fault.kind == "WP":
            if fault.rng.random() < 0.5:
                nut_metal = substitute_material(fault, nut_metal, ZINC)
            else:
                washer_black = substitute_material(
                    fault, washer_black, RED if fault.rng.random() < 0.5 else ZINC
                )
        else:
            lean, way = scale_by_severity(fault, 0.10, 0.26), float(fault.rng.uniform(0, TAU))
    nut_low, thread_low = level, 0.40

    def bend(p: Points) -> Points:
        if lean == 0.0:
            return p
        rise = np.maximum(p[2] - 0.8, 0.0)
        q = p.copy()
        q[0] = p[0] - lean * float(np.cos(way)) * rise * 1.6
        q[1] = p[1] - lean * float(np.sin(way)) * rise * 1.6
        return q

    def head(p: Points) -> Values:
        r = length(p[:2])
        chamfer = 0.70 * (r - 0.63) + 0.70 * (0.06 - p[2])
        hexagonal = smooth_max(extrude(hexagon(p[0], p[1], 0.56), p[2], 0.0, 0.34, 0.02), chamfer, 0.02)
        flange = extrude(r - (0.86 - 0.25 * np.maximum(p[2] - 0.34, 0)), p[2], 0.30, 0.43, 0.03)
        return smooth_min(hexagonal, flange, 0.05)

    def shank(p: Points) -> Values:
        q = bend(p)
        r = length(q[:2])
        helix = q[2] * (1 / 0.085) - angle(q[0], q[1]) * (1 / TAU)
        ridge = np.abs(helix - np.rint(helix)) * 2.0
        rod = (r - 0.325 + 0.05 * ridge) * (0.55 if lean else 0.64)
        end = 0.7071 * (r + q[2] - (0.325 + 1.27))
        return smooth_max(np.maximum(rod, np.maximum(thread_low - p[2], q[2] - 1.33)), end, 0.02)

    def washer(p: Points) -> Values:
        r = length(p[:2])
        ring = extrude(np.maximum(r - 0.66, 0.30 - r), p[2], 0.44, nut_low - 0.02, 0.025)
        return np.maximum(ring, -wedge(turned(p, float(np.degrees(way))), gap)) if gap else ring

    def nut(p: Points) -> Values:
        q = turned(p, spin)
        r = length(q[:2])
        low, high = nut_low, nut_low + 0.27
        solid = extrude(hexagon(q[0], q[1], 0.50), q[2], low, high, 0.012)
        cone = 0.6 * (r - 0.53) + 0.8 * (np.abs(q[2] - (low + high) / 2) - 0.135)
        result: Values = np.maximum(smooth_max(solid, cone, 0.02), 0.28 - r)
        return result

    components = [
        Component("bolt head", head, zinc),
        Component("shank", shank, zinc),
    ]
    if has_washer:
        components.append(Component("washer", washer, washer_black))
    if has_nut:
        components.append(Component("nut", nut, nut_metal))
    return Part(tuple(components), radius=0.9, height=1.34, table=(0.66, 0.65, 0.62))


def bearing(rng: np.random.Generator, fault: Fault | None) -> Part:
    """An open ball bearing. QS: one to three balls missing; WP: a ball of another material; BX: the inner
    ring tilted."""
    balls, top = 9, 0.46
    steel, cage_metal, ball_metal = jitter(STEEL, rng), jitter(BRASS, rng), jitter(ZINC, rng)
    phase = float(rng.uniform(0, 360))
    gone: tuple[int, ...] = ()
    odd: int | None = None
    odd_material: Material = ball_metal
    lean = way = 0.0
    if fault is not None:
        ball = int(fault.rng.integers(balls))
        if fault.kind == "QS":
            gone = choose_neighbors(fault, balls, 3)
        elif fault.kind == "WP":
            odd = ball
            odd_material = substitute_material(
                fault, ball_metal, BLACK if fault.rng.random() < 0.5 else BRASS
            )
        else:
            lean, way = scale_by_severity(fault, 2.5, 6.0), float(fault.rng.uniform(0, 360))

    def ring(p: Points, r: Values, low: float, high: float) -> Values:
        body = extrude(np.abs(r - (low + high) / 2) - (high - low) / 2, p[2], 0.0, top, 0.03)
        race = np.sqrt((r - 0.635) ** 2 + (p[2] - top / 2) ** 2) - 0.165
        return smooth_max(body, -race, 0.015)

    def outer(p: Points) -> Values:
        return ring(p, length(p[:2]), 0.745, 0.985)

    def inner(p: Points) -> Values:
        if lean:
            p = turned(turned(turned(p, way), lean, axis=0, pivot=(0.0, 0.0, top / 2)), -way)
        return ring(p, length(p[:2]), 0.32, 0.53)

    def cage(p: Points) -> Values:
        q = turned(p, phase)
        r, local, _ = sectors(q, balls)
        pocket = (
            np.sqrt((r * np.cos(local) - 0.635) ** 2 + (r * np.sin(local)) ** 2 + (p[2] - 0.26) ** 2) - 0.175
        )
        body = extrude(np.abs(r - 0.635) - 0.055, p[2], 0.20, 0.37, 0.015)
        return smooth_max(body, -pocket, 0.01)

    def spheres(p: Points, absent: tuple[int, ...]) -> Values:
        r, local, _ = sectors(turned(p, phase), balls, absent)
        result: Values = (
            np.sqrt((r * np.cos(local) - 0.635) ** 2 + (r * np.sin(local)) ** 2 + (p[2] - 0.24) ** 2) - 0.155
        )
        return result

    def row(p: Points) -> Values:
        return spheres(p, gone if odd is None else (odd,))

    components = [
        Component("outer ring", outer, steel),
        Component("inner ring", inner, steel),
        Component("cage", cage, cage_metal),
        Component("balls", row, ball_metal),
    ]
    if odd is not None:
        at = TAU * odd / balls + np.radians(phase)
        center = np.array([0.635 * np.cos(at), 0.635 * np.sin(at), 0.24], np.float32)[:, None]

        def single(p: Points) -> Values:
            return length(p - center) - 0.155

        components.append(Component("odd ball", single, odd_material))
    return Part(tuple(components), radius=1.0, height=top, table=(0.36, 0.42, 0.50))
