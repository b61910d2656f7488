"""The table of a training: prints one row when a model is finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.terminal.console import err, out
from idif.training.checkpoint import read_progress
from idif.training.checkpoint_files import find_checkpoint
from idif.training.run_log import read_log
from idif.training.validation import OVERFIT_GAP, PAINTED_S_AUROC
from idif.visualization.text import percent

COLUMNS = (("samples", 7), ("epochs", 6), ("loss", 8))
"""Headings and widths between the model's name and its score."""
STATE = "finished before"
"""The longest state of a model."""
SCORES = {"s_auroc": "S-AUROC", PAINTED_S_AUROC: "painted"}
"""Score of a `model_summary` -> heading of its column."""


def model_summary(name: str, folder: Path, samples: int | None, state: str) -> dict[str, Any]:
    """Summary of a model's training from its folder, as JSON values.

    ``s_auroc`` is that after the last epoch, with `train.patience` that of the best one, null if
    `train.eval_every` is 0; ``painted_s_auroc`` likewise on painted defects (`train.validate_every`);
    ``overfit_gap`` belongs to ``s_auroc`` (`train.overfit_alarm`, else null);
    ``seconds`` is the time spent in epochs, stages and earlier attempts included.
    """
    checkpoint = find_checkpoint(folder)
    done = None if checkpoint is None else read_progress(checkpoint)
    epoch = 0 if done is None else done.epoch
    lines = _lines(folder / "log.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    seen = {line["epoch"]: line["eval"] for line in lines if "eval" in line}
    scores = seen.get(seen.get(epoch, {}).get("best_epoch") or epoch, {})
    # stages before the last have their own folders
    timing = [line for path in sorted(folder.glob("*/timing.jsonl")) for line in _lines(path)]
    timing += _lines(folder / "timing.jsonl")
    return {
        "name": name,
        "samples": samples,
        "epochs": epoch,
        "steps": 0 if done is None else done.step,
        "loss": losses[-1] if losses else None,
        **{key: scores.get(key) for key in (*SCORES, OVERFIT_GAP)},
        "seconds": sum(line["seconds"] for line in timing),
        "state": state,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_log(path) if path.exists() else []


class LiveTable:
    """Prints rows as they arrive, on stdout, or on stderr if stdout is for JSON. Column widths are fixed."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = err if as_json else out
        self._width = 0
        self._score: str | None = None

    def begin(self, run: str, models: Sequence[str], score: str | None) -> None:
        """Print the run's name and the headings.

        Args:
            run: its name.
            models: the names of all later rows.
            score: the key of `SCORES` that has a column; None: there is no score.
        """
        self._score = score
        fixed = sum(width for _, width in self._columns()) + len(STATE) + 2 * (len(self._columns()) + 1)
        longest = max(len("model"), *map(len, models))
        self._width = max(len("model"), min(longest, self._console.width - fixed))
        self._console.print(run, markup=False)
        headed = self._table(show_header=True)
        self._console.print(headed)

    def add(self, model: dict[str, Any]) -> None:
        """Print the row of a `model_summary`."""
        row = self._table(show_header=False)
        row.add_row(
            model["name"],
            "" if model["samples"] is None else str(model["samples"]),
            str(model["epochs"]),
            "" if model["loss"] is None else f"{model['loss']:.4f}",
            *([] if self._score is None else [percent(model[self._score], "")]),
            duration(model["seconds"]),
            model["state"],
        )
        self._console.print(row)

    def _table(self, *, show_header: bool) -> Table:
        table = Table(box=SIMPLE_HEAD, show_header=show_header, show_edge=False, pad_edge=False)
        table.add_column("model", width=self._width, overflow="fold")
        for heading, width in self._columns():
            table.add_column(heading, width=width, justify="right", no_wrap=True)
        table.add_column("state", width=len(STATE))
        return table

    def _columns(self) -> list[tuple[str, int]]:
        """Headings and widths of the columns of numbers."""
        scores = [] if self._score is None else [(SCORES[self._score], 7)]
        return [*COLUMNS, *scores, ("time", 8)]


def duration(seconds: float) -> str:
    """A duration as text: 12 s, 4:05 min, 3:20 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
