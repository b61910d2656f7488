"""The welding process of a run over time: gas metal arc welding with short-circuiting wire."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idif.datasets.weld.synthetic.plan import RunPlan

RATE = 1000
"""Steps per second."""
AMPERES_PER_FEED = 28.0
"""Arc current in A per m/min of wire: the power source burns off what is fed."""
SHORT_STEPS = 3
"""Duration of a short circuit in steps."""
SHORT_VOLTAGE = 3.5
_LEAD = 0.05
"""Share of the run before the arc is struck and after it has gone out."""
_CRATER_FILL = 0.1
"""Share of the run in which the current is lowered at the end, so that the crater fills."""

Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """Quantities at each step, [N]."""

    arc: Series
    """1 where the arc burns, else 0."""
    feed: Series
    """Wire speed in m/min."""
    current: Series
    """In A, with the peaks of short circuits."""
    voltage: Series
    """In V, with the drops of short circuits."""
    gas: Series
    """Flow of shielding gas in l/min."""
    pressure: Series
    """Pressure of the gas, in bar."""
    shorts: npt.NDArray[np.int64]
    """Steps at which a short circuit begins, ascending [K]."""
    heat: Series
    """Arc power over travel speed, 1 for the setting's nominal values."""

    def mean(self, values: Series, count: int) -> Series:
        """``values`` averaged over ``count`` equal spans of time."""
        bounds = np.linspace(0, len(values), count + 1).astype(int)
        sums = np.concatenate([[0.0], np.cumsum(values)])
        means: Series = (sums[bounds[1:]] - sums[bounds[:-1]]) / np.diff(bounds)
        return means


def simulate(plan: RunPlan, kinds: frozenset[str], seconds: float) -> Process:
    """The process of a run with some defects, deterministic.

    Args:
        kinds: the simple defects that act, a subset of the run's.
    """
    count, setting, severity = round(seconds * RATE), plan.setting, plan.severity
    x = (np.arange(count) + 0.5) / count
    arc = ((x > _LEAD) & (x < 1 - _LEAD)).astype(np.float64)
    feed = setting.current_a / AMPERES_PER_FEED * (1 + 0.012 * _drift(plan, "feed", count))
    voltage = setting.voltage_v * (1 + 0.012 * _drift(plan, "voltage", count))
    gas = 16.0 * setting.gas_bar / 4 * (1 + 0.015 * _drift(plan, "gas", count))
    pressure = setting.gas_bar * (1 + 0.006 * _drift(plan, "pressure", count))
    wander = 0.02 * _drift(plan, "current", count)
    start, end = plan.place
    within = ((x >= start) & (x <= end)).astype(np.float64)

    if "crater_cracks" not in kinds:
        fill = np.clip((1 - _LEAD - x) / _CRATER_FILL, 0, 1)
        feed *= 0.5 + 0.5 * fill
        voltage *= 0.85 + 0.15 * fill
    if "excessive_convexity" in kinds:
        voltage *= 1 - 0.08 * severity
    if "undercut" in kinds:
        voltage *= 1 + 0.08 * severity
    if "excessive_penetration" in kinds:
        feed *= 1 + 0.11 * severity
    if "overlap" in kinds:
        feed *= 1 + 0.16 * severity
        voltage *= 1 - 0.03 * severity
    if "porosity" in kinds:
        gas *= 1 - 0.65 * min(severity, 1.0) * within
        pressure *= 1 - 0.08 * severity * within
    if "spatter" in kinds:
        wander = wander + 0.12 * severity * plan.rng("unsteady").standard_normal(count)
    if "burnthrough" in kinds:
        feed *= 1 + 0.1 * severity * np.clip(1 - np.abs(x - start) / 0.1, 0, 1)
        arc *= 1 - ((x > start) & (x < start + 0.04 * (1 + severity)))

    shorts = _shorts(plan, voltage, arc, unsteady="spatter" in kinds)
    shorted = _spread(shorts, np.ones(SHORT_STEPS), count)
    rise = _spread(
        shorts, np.concatenate([np.linspace(0.2, 0.6, SHORT_STEPS), 0.6 * np.exp(-np.arange(6) / 2.5)]), count
    )
    current = arc * AMPERES_PER_FEED * feed * (1 + wander) * (0.95 + np.minimum(rise, 0.8))
    nominal = setting.current_a * setting.voltage_v
    heat = arc * AMPERES_PER_FEED * feed * voltage / nominal
    shown = np.where(arc > 0, np.where(shorted > 0, SHORT_VOLTAGE, voltage), 0.0)
    if "burnthrough" in kinds:
        shown = np.where((arc == 0) & (x > start) & (x < end), 1.6 * setting.voltage_v, shown)
    return Process(arc, feed * (x < 1 - _LEAD), current, shown, gas, pressure, shorts, heat)


def _drift(plan: RunPlan, name: str, count: int) -> Series:
    """A slow random curve of about unit size."""
    knots = plan.rng(f"drift {name}").standard_normal(10)
    return np.interp(np.linspace(0, 9, count), np.arange(10), knots)


def _shorts(plan: RunPlan, voltage: Series, arc: Series, *, unsteady: bool) -> npt.NDArray[np.int64]:
    """Beginnings of short circuits: the lower the voltage, the shorter the arc and the more often."""
    per_second = np.clip(90 - 11 * (voltage - 20), 15, 140)
    draws = plan.rng("shorts").random(len(voltage))
    if unsteady:
        per_second = (
            per_second
            * np.repeat(plan.rng("bursts").choice([0.3, 2.0], size=len(voltage) // 100 + 1), 100)[
                : len(voltage)
            ]
        )
    begins = np.flatnonzero(draws < per_second / RATE * arc)
    since_last = np.diff(begins, prepend=-len(voltage))
    apart: npt.NDArray[np.int64] = begins[since_last > 2 * SHORT_STEPS].astype(np.int64)
    return apart


def _spread(steps: npt.NDArray[np.int64], shape: Series, count: int) -> Series:
    """A curve of ``count`` steps with ``shape`` added from each of the given steps on."""
    impulses = np.zeros(count)
    impulses[steps] = 1
    return np.convolve(impulses, shape)[:count]
