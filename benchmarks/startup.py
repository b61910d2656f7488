"""Start-up of the command line: CPU seconds, peak memory and heavy modules of commands that compute nothing.

python benchmarks/startup.py --json [--store STORE] [--runs DIR]
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

HEAVY = ("torch", "torchvision", "vtkmodules", "pyvista", "numpy", "scipy", "cv2", "tensorstore", "h5py")
"""Modules that take long to import, or much memory."""

PROBE = """
import json, sys, time
from cli.__main__ import run
code = run(json.loads(sys.argv[1]))
seconds = time.process_time()
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
except ImportError:
    peak = None
found = {"code": code, "cpu_s": seconds, "peak_bytes": peak, "modules": sorted(sys.modules)}
print(json.dumps(found), file=sys.stderr)
"""


def probe(arguments: list[str]) -> dict[str, Any]:
    """Run one command line in a process of its own; its exit code, costs, output and imported modules."""
    command = [sys.executable, "-c", PROBE, json.dumps(arguments)]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    found: dict[str, Any] = json.loads(process.stderr.splitlines()[-1])
    return found | {"stdout": process.stdout}


def measure(arguments: list[str], repeats: int) -> dict[str, Any]:
    """The median CPU time and peak memory of a command line, and which of `HEAVY` it imports."""
    runs = [probe(arguments) for _ in range(repeats)]
    assert all(run["code"] == 0 for run in runs), (arguments, runs[0]["code"])
    peak = runs[0]["peak_bytes"]
    return {
        "command": " ".join(["idif", *arguments]),
        "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 3),
        "peak_mb": None if peak is None else round(peak / 1e6, 1),
        "heavy": [name for name in HEAVY if name in runs[0]["modules"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object; there is no other form")
    parser.add_argument("--store", help="a store, to measure `idif cache info`")
    parser.add_argument("--runs", help="a folder of runs, to measure `idif runs`")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    commands = [["--help"], ["--version"]]
    if options.store:
        commands.append(["cache", "info", options.store])
    if options.runs:
        commands.append(["runs", options.runs])
    results = [measure(arguments, options.repeats) for arguments in commands]
    print(json.dumps({"python": sys.version.split()[0], "repeats": options.repeats, "commands": results}))


if __name__ == "__main__":
    main()
