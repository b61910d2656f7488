"""`idif eval`: runs the test pass of a run and computes its metrics."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import SetOption
from cli.terminal.console import JsonOption, err, note, print_result
from cli.terminal.metrics_table import metrics_table, paired_table
from cli.workflow.evaluate import evaluate_run
from idif.data.index import Split
from idif.errors import ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.report.table_export import check_exports, export
from idif.runs.baseline import compared_with_baseline
from idif.runs.evaluate import measure
from idif.runs.run import open_results, open_run


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    split: Annotated[Split, typer.Option(help="Split to evaluate.")] = "test",
    from_predictions: Annotated[
        bool, typer.Option("--from-predictions", help="Compute metrics again from predictions.h5.")
    ] = False,
    no_maps: Annotated[
        bool, typer.Option("--no-maps", help="Keep no anomaly maps; pixel metrics come from the pass.")
    ] = False,
    save_reconstruction: Annotated[
        bool,
        typer.Option(
            "--save-reconstruction",
            help="Also write reconstruction.h5: the features as the method rebuilds them.",
        ),
    ] = False,
    exports: Annotated[
        list[Path],
        typer.Option(
            "--export",
            metavar="FILE",
            help="Also write .csv, .md, .tex: a table beside the paper's; .pkl: maps and scores for ADEval.",
        ),
    ] = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write predictions.h5 and metrics.json for all the run's categories; the last epoch's weights are used.

    Examples:

        idif eval runs/realiad --set cache.store=/mnt/stores/realiad.zarr

        idif eval runs/realiad --from-predictions --export table.tex --export maps.pkl
    """
    check_exports(exports)
    if save_reconstruction and from_predictions:
        raise ConfigError("--save-reconstruction: predictions hold no features; leave --from-predictions out")
    if from_predictions:
        results, config = open_results(run, overrides)
        metrics = measure(results, config.eval, notify=note)
    else:
        opened = open_run(run, overrides)
        results, config = opened.results, opened.config
        metrics = evaluate_run(opened, split=split, maps=not no_maps, reconstruction=save_reconstruction)
    for path in exports:
        export(path, metrics, Predictions.open(results / "predictions.h5"))
    print_result(metrics, as_json=as_json, otherwise=metrics_table(metrics))
    try:
        found = compared_with_baseline(results, config)
    except RunError as error:
        note(f"note: {error}")
    else:
        if found is not None:
            err.print(paired_table(found))
            note(f"{found.sentence()}.")
