"""Make the pictures of synthetic weld runs in ``docs/images``: stills, frames, and what each input records.

Examples:
    python docs/make_weld_pictures.py

    python docs/make_weld_pictures.py --out /tmp/pictures

Needs the extra `weld` and Matplotlib.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from idif.data.index import NORMAL_CLASS
from idif.data.media import SAMPLE_RATE
from idif.datasets.weld.synthetic.camera import render_video
from idif.datasets.weld.synthetic.plan import SHOWS, RunPlan, plan_runs
from idif.datasets.weld.synthetic.process import simulate
from idif.datasets.weld.synthetic.sensors import sensor_text
from idif.datasets.weld.synthetic.sound import render_sound
from idif.datasets.weld.synthetic.stills import VIEWS, render_stills

IMAGES = Path(__file__).parent / "images"
SECONDS = 6.0
MOMENT = 0.45
"""Share of a run at which its frame is shown."""
SHOWN = ("OK", "excessive_convexity", "porosity", "burnthrough", "excessive_penetration")
"""Runs whose sensor values and sound are drawn."""
SENSORS = {
    "Secondary Weld Voltage": "voltage, V",
    "Primary Weld Current": "current, A",
    "CO2 Weld Flow": "gas flow",
}
"""Column of a run's sensor values -> its label."""
SHORT_CIRCUITS = slice(2020, 2120)
"""Milliseconds of the process that are drawn."""


def words(defect: str) -> str:
    """A defect's name as text."""
    return "good" if defect == NORMAL_CLASS else defect.replace("w-", "with ").replace("_", " ")


def save(out: Path, name: str) -> None:
    """Write the current figure as WebP."""
    path = out / name
    plt.savefig(path, dpi=80, pil_kwargs={"quality": 80, "method": 6})
    plt.close()
    print(f"{path.name}: {path.stat().st_size} bytes")


def pictures(good: RunPlan, out: Path) -> None:
    """A frame and the five stills of a good run and of the same run with each defect."""
    names = (NORMAL_CLASS, *SHOWS)
    figure, axes = plt.subplots(len(names), 6, figsize=(9, 1.5 * len(names)), layout="constrained")
    for row, name in zip(axes, names, strict=True):
        plan = replace(good, defect=name)
        frames = render_video(plan, SECONDS, 128)
        images = [frames[int(MOMENT * len(frames))], *render_stills(plan, 160)]
        for place, image, title in zip(row, images, ("frame", *VIEWS), strict=True):
            place.imshow(image[..., ::-1])
            place.set_xticks([])
            place.set_yticks([])
            if name == NORMAL_CLASS:
                place.set_title(title)
        row[0].set_ylabel(fill(words(name), 12), rotation=0, ha="right", va="center", fontsize=9)
    figure.align_ylabels()
    save(out, "weld-runs.webp")


def traces(good: RunPlan, out: Path) -> None:
    """Voltage, current and gas of some runs, and the spectrograms of their sounds."""
    _, axes = plt.subplots(4, len(SHOWN), figsize=(13, 8), sharex=True, sharey="row", layout="constrained")
    for column, name in zip(axes.T, SHOWN, strict=True):
        plan = replace(good, defect=name)
        head, *lines = sensor_text(plan, SECONDS).splitlines()
        table = dict(
            zip(head.split(","), np.array([line.split(",") for line in lines], float).T, strict=True)
        )
        column[0].set_title(words(name))
        for place, (sensor, label) in zip(column, SENSORS.items(), strict=False):
            place.plot(table["Time"], table[sensor])
            if name == NORMAL_CLASS:
                place.set_ylabel(label)
        sound = render_sound(plan, SECONDS)
        column[3].specgram(sound + 1e-9, NFFT=512, Fs=SAMPLE_RATE, noverlap=256, vmin=-130, vmax=-50)
        column[3].set_xlabel("s")
        column[3].set_xlim(0, SECONDS)
    for row in axes[:3]:
        row[0].set_ylim(bottom=0)
    axes[3, 0].set_ylabel("sound, Hz")
    save(out, "weld-traces.webp")


def short_circuits(good: RunPlan, out: Path) -> None:
    """A tenth of a second of the process: each short circuit drops the voltage and raises the current."""
    process = simulate(good, frozenset(), SECONDS)
    _, axes = plt.subplots(2, 1, figsize=(8, 3), sharex=True, layout="constrained")
    for place, values, label in zip(
        axes, (process.voltage, process.current), ("voltage, V", "current, A"), strict=True
    ):
        shown = values[SHORT_CIRCUITS]
        place.step(np.arange(len(shown)), shown, where="post")
        place.set_xlim(0, len(shown))
        place.set_ylim(0, 1.1 * max(shown))
        place.set_ylabel(label)
    axes[1].set_xlabel("ms")
    save(out, "weld-process.webp")


def main() -> None:
    """Make all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    good = replace(plan_runs(200, 0)[0], defect=NORMAL_CLASS)
    pictures(good, out)
    traces(good, out)
    short_circuits(good, out)


if __name__ == "__main__":
    main()
