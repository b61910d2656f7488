"""IDIF, the four rows of Table 3, PatchCore and PaDiM on rendered parts of three levels, in one table.

    python benchmarks/rendered.py --work scratch --out rendered.json --weights imagenet --size 256 \
        --steps 1000 --head-steps 2000 --seeds 0 1 2

An arbiter where a real set measures exposure instead of defects: `idif data synth` renders 6 categories with
60 training and 60 test samples at every level (`easy`, `medium`, `hard`). Each level has a store, all methods
read it, and each trained method gets the same number of steps. Every command is one of `idif`, so a run in
``--work`` can be opened and reported like any other. Results are written after each run; a second call goes
on where the first was stopped. Prints one JSON object with a table.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from cli.__main__ import run

LEVELS = ("easy", "medium", "hard")
FIGURES = ("s_auroc", "i_auroc", "p_auroc", "aupro")
TABLE_3 = yaml.safe_load(
    (Path(__file__).parents[1] / "configs" / "ablations" / "table3.yaml").read_text(encoding="utf-8")
)
TRAINED: dict[str, dict[str, Any]] = {
    row["name"]: {**TABLE_3["method"], **row.get("method", {})} for row in TABLE_3["matrix"]
} | {"idif-cosine": {}}
"""Rows of Table 3, of which the last is IDIF, and IDIF without a head; values: the section ``method``."""
FITTED: dict[str, dict[str, Any]] = {"patchcore": {"name": "patchcore"}, "padim": {"name": "padim"}}
Found = dict[str, Any]


def command(*line: str) -> Any:
    """The JSON answer of a command of `idif`."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        code = run([*line, "--json"])
    if code:
        raise RuntimeError(f"idif {' '.join(line)}: exit code {code}")
    return json.loads(written.getvalue())


def make_store(options: argparse.Namespace, level: str) -> Path:
    """The store of a level; rendered and built if it is not there."""
    data, store = options.work / f"data-{level}", options.work / f"{level}.zarr"
    if not store.exists():
        if not data.exists():
            command(
                *("data", "synth", str(data), f"--categories={options.categories}"),
                *(f"--train={options.train}", f"--test={options.test}", f"--size={options.size}"),
                f"--difficulty={level}",
            )
        command(
            *("cache", "build", "realiad", f"--root={data}", f"--store={store}"),
            *(f"--images=realiad_{options.size}", f"--image-size={options.size}"),
            f"--teacher-weights={options.weights}",
        )
    return store


def run_config(options: argparse.Namespace, store: Path, name: str, method: str, seed: int) -> Found:
    """The config of one run."""
    config: Found = {
        "cache": {"store": str(store)},
        "eval": {"score": "topshare", "top_share": options.top_share},
        "run": {"name": name, "dir": str(options.work / "runs"), "tracking": "none"},
        "train": {"seed": seed, "holdout": options.holdout},
    }
    if method in FITTED:
        return config | {"method": FITTED[method]}
    section = dict(TRAINED[method])
    if options.smallest:
        section |= {"voxel": {"depth": 2, "height": 2, "width": 2, "channels": 16}, "attention_heads": 2}
    if section.get("head") == "segmentation":
        section["head_steps"] = options.head_steps
    config["train"] |= {
        "steps": options.steps,
        "sub_epochs": options.sub_epochs,
        "batch_size": options.batch_size,
    }
    return config | {"method": section, "corruption": {"textures": str(options.textures)}}


def measure(options: argparse.Namespace, level: str, method: str, seed: int) -> Found:
    """Train and evaluate one method at one level."""
    name = f"{level}-{method}-{seed}"
    config = options.work / f"{name}.yaml"
    config.write_text(
        yaml.safe_dump(run_config(options, make_store(options, level), name, method, seed)), encoding="utf-8"
    )
    folder, began = options.work / "runs" / name, time.perf_counter()
    command("train", f"--config={config}", *(["--resume"] if folder.exists() else []))
    trained = time.perf_counter()
    metrics = command("eval", str(folder), "--no-maps")
    categories = metrics["categories"]
    distances = [c["feature_distance"] for c in categories.values() if "feature_distance" in c]
    return {
        "level": level,
        "method": method,
        "seed": seed,
        **{figure: metrics["mean"][figure] for figure in FIGURES},
        "categories": {c: {f: values[f] for f in FIGURES} for c, values in categories.items()},
        # of a trained student; the features' mean gives the second number
        "feature_distance": statistics.mean(d["model"] for d in distances) if distances else None,
        "mean_feature_distance": statistics.mean(d["mean"] for d in distances) if distances else None,
        "train_s": trained - began,
        "eval_s": time.perf_counter() - trained,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table: means over seeds in percent, a column for each level and figure."""
    levels = [level for level in LEVELS if any(row["level"] == level for row in rows)]
    heads = [f"{level} {figure}" for level in levels for figure in ("S", "P", "AUPRO")]
    lines = ["| method | " + " | ".join(heads) + " |", "|" + "---|" * (1 + len(heads))]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for level in levels:
            of = [row for row in rows if (row["method"], row["level"]) == (method, level)]
            for figure in ("s_auroc", "p_auroc", "aupro"):
                values = [row[figure] for row in of if row[figure] is not None]
                cells.append(f"{100 * statistics.mean(values):.1f}" if values else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, stores and runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after every run")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no run begins")
    parser.add_argument("--categories", type=int, default=6)
    parser.add_argument("--train", type=int, default=60, help="samples of a category")
    parser.add_argument("--test", type=int, default=60, help="samples of a category")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--methods", nargs="+", choices=(*FITTED, *TRAINED), default=[*FITTED, *TRAINED])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", default="imagenet", help="of the teacher, or untrained, or a file")
    parser.add_argument("--textures", default="procedural", help="folder of textures")
    parser.add_argument("--steps", type=int, default=1000, help="of a student")
    parser.add_argument("--head-steps", type=int, default=2000)
    parser.add_argument("--sub-epochs", type=int, default=10, help="passes between two checkpoints")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--holdout", type=float, default=0.1)
    parser.add_argument("--top-share", type=float, default=0.01)
    parser.add_argument("--smallest", action="store_true", help="the smallest students, for a try")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = ("levels", "methods", "seeds", "minutes", "out", "work")
    settings = {name: value for name, value in vars(options).items() if name not in chosen}
    found: Found = {"settings": settings, "torch": torch.__version__, "threads": torch.get_num_threads()}
    found["rows"] = []
    if options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if before["settings"] != settings:
            parser.error(f"--out: {options.out} holds results of other settings")
        found["rows"] = before["rows"]
    done = {(row["level"], row["method"], row["seed"]) for row in found["rows"]}
    began = time.perf_counter()
    left = 0
    for seed in options.seeds:
        for level in options.levels:
            for method in options.methods:
                if (level, method, seed) in done:
                    continue
                if time.perf_counter() - began > 60 * options.minutes:
                    left += 1
                    continue
                found["rows"].append(measure(options, level, method, seed))
                found["table"] = table(found["rows"])
                options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found | {"runs_left": left}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
