"""How long rendered samples take: all categories, half of the test samples defective, some worker processes.

Example:
    python benchmarks/render.py --json --workers 2

Prints one JSON object: wall-clock and processor seconds, the start of the processes included, and what 100
samples come to on as many cores as there are workers, had each a core to itself.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from idif.datasets.synthetic import SynthRequest, synthesize
from idif.datasets.synthetic.catalog import BUILDERS


def main() -> None:
    """Render into a temporary folder and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train", type=int, default=3, help="samples per category")
    parser.add_argument("--test", type=int, default=4, help="samples per category, every other one defective")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON in any case")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        summary = synthesize(
            Path(folder) / "data",
            SynthRequest(categories=len(BUILDERS), train=args.train, test=args.test, size=args.size),
            workers=args.workers,
        )
        wall = time.perf_counter() - began
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(used.ru_utime + used.ru_stime for used in usage)
    samples = len(BUILDERS) * (args.train + args.test)
    print(
        json.dumps(
            {
                "samples": samples,
                "anomalous": summary.anomalous,
                "size": args.size,
                "workers": args.workers,
                "wall_seconds": round(wall, 1),
                "cpu_seconds": round(cpu, 1),
                "seconds_per_100_on_free_cores": round(100 * cpu / samples / args.workers, 1),
                "load": [round(value, 1) for value in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
