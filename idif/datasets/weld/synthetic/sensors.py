"""The sensor values of a synthetic run."""

import io

import numpy as np

from idif.datasets.weld.synthetic.plan import RunPlan
from idif.datasets.weld.synthetic.process import RATE, simulate

ROWS_PER_SECOND = 9


def sensor_text(plan: RunPlan, seconds: float) -> str:
    """The CSV file of a run: a line for each ninth of a second."""
    process = simulate(plan, plan.kinds("sensor"), seconds)
    rows = max(2, round(seconds * ROWS_PER_SECOND))
    noise = plan.rng("sensor noise")
    columns = {
        "Time": (np.arange(rows) + 1) / ROWS_PER_SECOND,
        "Pressure": process.mean(process.pressure, rows),
        "CO2 Weld Flow": process.mean(process.gas, rows),
        "Feed": process.mean(process.feed, rows),
        "Primary Weld Current": process.mean(process.current, rows),
        "Wire Consumed": np.cumsum(process.mean(process.feed * process.arc, rows)) / 60 / ROWS_PER_SECOND,
        "Secondary Weld Voltage": process.mean(process.voltage, rows),
    }
    assert len(process.arc) >= rows, (len(process.arc), RATE)
    text = io.StringIO()
    text.write(",".join(columns) + "\n")
    table = np.stack(list(columns.values()), axis=1)
    table[:, 1:] *= 1 + 0.004 * noise.standard_normal((rows, len(columns) - 1))
    for line in table:
        text.write(",".join(f"{value:.4f}" for value in line) + "\n")
    return text.getvalue()
