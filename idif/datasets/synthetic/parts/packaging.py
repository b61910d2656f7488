"""Packaging: a blister pack of capsules, a pair of batteries in their holder."""

import numpy as np

from idif.datasets.synthetic.materials import (
    BLACK,
    BLUE,
    FOIL,
    GREEN,
    ORANGE,
    RED,
    WHITE,
    YELLOW,
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
    printed,
    rectangle,
    smooth_max,
    smooth_min,
    turned,
)

_PITCH_X, _PITCH_Y, _COLUMNS = 0.36, 0.60, 5


def blister_pack(rng: np.random.Generator, fault: Fault | None) -> Part:
    """A foil tray of ten two-colored capsules. QS: one to three capsules missing; WP: a capsule of another
    color; BX: a capsule askew in its hollow."""
    foil, red, cream = jitter(FOIL, rng), jitter(RED, rng), jitter(WHITE, rng)
    red = Material(red.color, roughness=0.2, grain=0.01)
    gone: tuple[int, ...] = ()
    odd: int | None = None
    odd_red, lean = red, 0.0
    if fault is not None:
        if fault.kind == "QS":
            gone = choose_neighbors(fault, 10, 3)
        else:
            odd = int(fault.rng.integers(10))
            if fault.kind == "WP":
                odd_red = substitute_material(fault, red, (BLUE, GREEN, ORANGE)[int(fault.rng.integers(3))])
            else:
                lean = float(fault.rng.choice([-1, 1])) * scale_by_severity(fault, 9.0, 38.0)
    out = {*gone} if odd is None else {odd}

    def cell(p: Points) -> tuple[Values, Values, Values]:
        """Coordinates within the nearest hollow, and its number."""
        column = np.clip(np.rint(p[0] * (1 / _PITCH_X) + 2), 0, _COLUMNS - 1)
        row = (p[1] > 0).astype(np.float32)
        x = p[0] - (column - 2) * np.float32(_PITCH_X)
        y = p[1] - (row - np.float32(0.5)) * np.float32(_PITCH_Y)
        return x, y, row * _COLUMNS + column

    def tray(p: Points) -> Values:
        x, y, _ = cell(p)
        card = extrude(rectangle(p[0], p[1], 0.98, 0.66, 0.10), p[2], 0.0, 0.10, 0.02)
        # Raised shells round the hollows.
        outer = length(np.stack([x, np.maximum(np.abs(y) - 0.13, 0.0), p[2] - np.float32(0.06)])) - 0.165
        card = smooth_min(card, np.maximum(outer, 0.02 - p[2]), 0.03)
        hollow = length(np.stack([x, np.maximum(np.abs(y) - 0.13, 0.0), p[2] - np.float32(0.20)])) - 0.135
        card = smooth_max(card, -hollow, 0.02)
        # A row of perforation between the halves.
        dash = np.maximum(np.abs(p[1]) - 0.010, np.abs(p[0] - np.rint(p[0] * 10.0) * np.float32(0.1)) - 0.03)
        result: Values = 0.95 * np.maximum(card, -np.maximum(dash, 0.085 - p[2]))
        return result

    def capsule(x: Values, y: Values, z: Values, grow: float) -> Values:
        return length(np.stack([x, np.maximum(np.abs(y) - 0.125, 0.0), z - np.float32(0.185)])) - (
            0.098 + grow
        )

    def row(p: Points, grow: float) -> tuple[Values, Values]:
        """Distance to the capsules, and how far along each a point lies."""
        x, y, number = cell(p)
        if out:
            lost = np.isin(number, list(out))
            # Distance to the nearer half of a neighbor; at the end of a row there is no neighbor.
            x = np.where(lost, np.minimum(np.abs(x), 0.5 * _PITCH_X) - np.float32(_PITCH_X), x)
        return capsule(x, y, p[2], grow), y

    def caps(p: Points) -> Values:
        distance, y = row(p, 0.006)
        return smooth_max(distance, -y, 0.006)

    def bodies(p: Points) -> Values:
        distance, y = row(p, 0.0)
        result: Values = np.maximum(distance, y - 0.01)
        return result

    components = [
        Component("tray", tray, foil),
        Component("caps", caps, red),
        Component("bodies", bodies, cream),
    ]
    if odd is not None:
        cx = (odd % _COLUMNS - 2) * _PITCH_X
        cy = (odd // _COLUMNS - 0.5) * _PITCH_Y

        def placed(p: Points) -> Points:
            q = p - np.array([cx, cy, 0.05 if lean else 0.0], np.float32)[:, None]
            return turned(q, lean) if lean else q

        def odd_cap(p: Points) -> Values:
            q = placed(p)
            return smooth_max(capsule(q[0], q[1], q[2], 0.006), -q[1], 0.006)

        def odd_body(p: Points) -> Values:
            q = placed(p)
            result: Values = np.maximum(capsule(q[0], q[1], q[2], 0.0), q[1] - 0.01)
            return result

        components += [Component("odd cap", odd_cap, odd_red), Component("odd body", odd_body, cream)]
    return Part(tuple(components), radius=1.0, height=0.36, table=(0.36, 0.42, 0.50))


def _sleeve_print(p: Points) -> Values:
    """Weight 0..1 [N] of the plus sign and the stripes on the batteries' sleeves."""
    x, y = p[0] - 0.40, np.abs(p[1]) - 0.30
    plus = np.minimum(rectangle(x, y, 0.06, 0.018), rectangle(x, y, 0.018, 0.06))
    stripes = np.abs(np.abs(x + 0.50) - 0.12) - 0.03
    return printed(np.minimum(plus, stripes))


def battery_holder(rng: np.random.Generator, fault: Fault | None) -> Part:
    """Two round cells side by side in a black holder. QS: a contact spring or a cell missing; WP: a cell with
    a sleeve of another color; BX: a contact plate bent away."""
    black, metal = jitter(BLACK, rng), jitter(FOIL, rng)
    metal = Material(metal.color, 1.0, 0.26, grain=0.02)
    blue = jitter(BLUE, rng)
    gone, lean, odd = "", 0.0, False
    sleeve = Material(
        blue.color, roughness=0.22, grain=0.01, pattern=_sleeve_print, pattern_color=(0.9, 0.9, 0.9)
    )
    odd_sleeve = sleeve
    side = 1.0
    if fault is not None:
        side = float(fault.rng.choice([-1, 1]))
        if fault.kind == "QS":
            gone = "contact" if fault.severity < 0.5 else "cell"
        elif fault.kind == "WP":
            odd = True
            odd_sleeve = substitute_material(fault, sleeve, (RED, GREEN, YELLOW)[int(fault.rng.integers(3))])
        else:
            lean = scale_by_severity(fault, 0.15, 0.5)
    radius, axis = 0.255, 0.34

    def holder(p: Points) -> Values:
        body = extrude(rectangle(p[0], p[1], 0.98, 0.64, 0.05), p[2], 0.0, 0.46, 0.025)
        room = extrude(rectangle(p[0], p[1], 0.90, 0.575, 0.02), p[2], 0.07, 2.0, 0.02)
        body = smooth_max(body, -room, 0.02)
        wall = extrude(rectangle(p[0], p[1], 0.90, 0.022, 0.01), p[2], 0.0, 0.34, 0.01)
        notch = np.maximum(np.abs(p[0]) - 0.30, 0.30 - p[2])  # for the fingers
        return smooth_max(np.minimum(body, wall), -notch, 0.03)

    def across(p: Points, y: float) -> Values:
        result: Values = np.sqrt((p[1] - np.float32(y)) ** 2 + (p[2] - np.float32(axis)) ** 2)
        return result

    def cell(p: Points, y: float) -> Values:
        return extrude(across(p, y) - radius, p[0], -0.74, 0.74, 0.035)

    def cell_metal(p: Points, y: float) -> Values:
        """The two ends, with the button of the plus pole."""
        r = across(p, y)
        x = p[0] if y > 0 else -p[0]
        ends = extrude(r - radius + 0.02, x, -0.765, 0.765, 0.02)
        button = extrude(r - 0.085, x, 0.70, 0.84, 0.02)
        return np.minimum(ends, button)

    def contacts(p: Points) -> Values:
        lost = np.float32(9.0)
        result = np.full(p.shape[1], lost, np.float32)
        for at in (-1.0, 1.0):
            for y in (-0.30, 0.30):
                chosen = at == side and y == 0.30 * side
                if gone == "contact" and chosen:
                    continue
                x = at * p[0] - np.float32(0.875)
                if lean and chosen:
                    x = x - np.float32(lean) * np.maximum(p[2] - np.float32(0.30), 0.0)
                plate = extrude(rectangle(p[1] - y, p[2] - 0.32, 0.13, 0.22, 0.04), x, -0.022, 0.022, 0.008)
                result = np.minimum(result, plate)
        return 0.9 * result

    components = [Component("holder", holder, black), Component("contacts", contacts, metal)]
    for y in (-0.30, 0.30):
        first = y == 0.30 * side
        if gone == "cell" and first:
            continue

        def sleeve_of(p: Points, y: float = y) -> Values:
            return cell(p, y)

        def ends_of(p: Points, y: float = y) -> Values:
            return cell_metal(p, y)

        name = "right" if y > 0 else "left"
        components += [
            Component(f"{name} cell", sleeve_of, odd_sleeve if odd and first else sleeve),
            Component(f"{name} poles", ends_of, metal),
        ]
    return Part(tuple(components), radius=1.0, height=0.62, table=(0.64, 0.62, 0.57))
