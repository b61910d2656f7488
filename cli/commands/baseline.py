"""`idif baseline`: fits a memory to a run's own store and compares the run with it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result
from cli.terminal.metrics_table import paired_table
from cli.workflow.evaluate import evaluate_run
from cli.workflow.train import train_run
from idif.files import remove_tree, writing
from idif.runs.baseline import baseline_config, compared_with_baseline
from idif.runs.files import read_config
from idif.runs.run import open_results, open_run


def baseline(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Fit a memory to the run's store and training samples, evaluate it, and compare the run with it.

    The baseline is PatchCore, in RUN/baseline: a run itself, for `idif report` and other commands. The run is
    better only if the paired 95 % interval of the difference of S-AUROC lies above 0. `idif eval` and
    `idif report` show the comparison from then on.

    Examples:

        idif baseline runs/realiad

        idif baseline runs/mvtec3d --set method.window=2

        idif baseline runs/mvtec3d --set method.name=padim
    """
    results, config = open_results(run)
    settings = baseline_config(run, overrides)
    existing = settings.folder / "config.yaml"
    if existing.is_file():
        before = read_config(settings.folder)
        if (before.method, before.train) != (settings.method, settings.train):
            note(f"{settings.folder}: replaced, its settings were others")
            with writing(settings.folder):
                remove_tree(settings.folder)
    train_run(settings, resume=existing.is_file())
    fitted = open_run(settings.folder)
    metrics = evaluate_run(fitted)
    found = compared_with_baseline(results, config)
    value = {"baseline": str(settings.folder), "mean": metrics["mean"]}
    value["compared"] = None if found is None else found.to_json()
    print_result(value, as_json=as_json, otherwise=None if found is None else paired_table(found))
    if found is None:
        note(f"next: idif eval {run}, which compares the run with its baseline")
    else:
        note(f"{found.sentence()}.")
