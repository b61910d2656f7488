"""The sound of a synthetic run: the arc's clicks and hiss, the shielding gas, and the power source's hum."""

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from idif.data.media import SAMPLE_RATE
from idif.datasets.weld.synthetic.plan import RunPlan
from idif.datasets.weld.synthetic.process import RATE, SHORT_STEPS, simulate

_HUM_HZ = 100
_CLICK_SECONDS = 0.012
_TONES = ((1200.0, 1.0, 300.0), (2700.0, 0.8, 500.0), (4300.0, 0.5, 900.0))
"""Frequency in Hz, weight and decay per second of a click's resonances."""


def render_sound(plan: RunPlan, seconds: float) -> npt.NDArray[np.float64]:
    """The sound of a run at `SAMPLE_RATE`, in -1..1.

    Each short circuit ends with a click as the arc is struck again, as loud as the current then is high.
    """
    kinds = plan.kinds("audio")
    process = simulate(plan, kinds, seconds)
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    step = np.minimum(time * RATE, len(process.arc) - 1).astype(int)

    rng = plan.rng("clicks")
    struck = np.minimum(process.shorts + SHORT_STEPS, len(process.arc) - 1)
    loud = process.current[np.maximum(struck - 1, 0)] / 200 * rng.uniform(0.7, 1.0, len(struck))
    if "porosity" in kinds:
        start, end = plan.place
        inside = (struck >= start * len(process.arc)) & (struck <= end * len(process.arc))
        # without gas the arc burns in air: droplets leave it violently
        loud *= 1 + 1.4 * plan.severity * inside * plan.rng("violent").uniform(0.2, 1.0, len(struck))
    if "spatter" in kinds:
        loud *= 1 + 2.5 * plan.severity * (plan.rng("bangs").random(len(struck)) < 0.15)
    impulses = np.zeros(count)
    jitter = rng.integers(0, SAMPLE_RATE // RATE, len(struck))
    np.add.at(impulses, np.minimum(struck * (SAMPLE_RATE // RATE) + jitter, count - 1), loud)
    moments = np.arange(round(_CLICK_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    hertz, weight, decay = np.array(_TONES).T[..., None]
    click = np.sum(weight * np.exp(-decay * moments) * np.sin(2 * np.pi * hertz * moments), axis=0)
    sound = 0.22 * fftconvolve(impulses, click)[:count]

    noise = plan.rng("hiss").standard_normal((2, count + 1))
    sound += 0.018 * np.sqrt(np.maximum(process.heat[step], 0)) * noise[0, :-1]
    sound += 0.006 * process.gas[step] / 16 * np.diff(noise[1])  # high frequencies only
    sound += 0.03 * process.current[step] / 160 * np.sin(2 * np.pi * _HUM_HZ * time)
    if "burnthrough" in kinds:
        after = time - plan.place[0] * seconds
        pop = np.where(after > 0, np.exp(-18 * np.maximum(after, 0)) * np.sin(2 * np.pi * 180 * after), 0.0)
        sound += 0.35 * plan.severity * pop
    return np.clip(sound, -1, 1)
