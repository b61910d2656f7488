"""`idif eval`: runs the test pass of a run and computes its metrics."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from cli.options import CheckpointOption, SetOption
from cli.terminal.console import JsonOption, err, note, print_result, progress_bar
from cli.terminal.decisions import decisions_text
from cli.terminal.metrics_table import metrics_table, paired_table
from cli.workflow.evaluate import evaluate_run
from idif.config.loader import given_keys
from idif.data.index import Split
from idif.errors import ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.report.table_export import check_exports, export
from idif.runs.baseline import compared_with_baseline
from idif.runs.evaluate import measure_again
from idif.runs.files import PREDICTIONS_FILE
from idif.runs.run import open_results, open_run


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    split: Annotated[Split | None, typer.Option(help="Split to evaluate.", show_default="test")] = None,
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
            help="Also write reconstruction.h5: features, and images where the method rebuilds these, which "
            "the report then shows.",
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
    checkpoint: CheckpointOption = "final",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write predictions.h5 and metrics.json for all the run's categories; the last epoch's weights are used.

    With --checkpoint last a run in training is evaluated too, and all results name its epoch. With
    --from-predictions, scores are computed again from the stored maps where eval.score, eval.top_k,
    eval.top_share or eval.sample_score is set.

    Examples:

        idif eval runs/realiad --set cache.store=/mnt/stores/realiad.zarr

        idif eval runs/realiad --from-predictions --export table.tex --export maps.pkl
    """
    check_exports(exports)
    if save_reconstruction and from_predictions:
        raise ConfigError("--save-reconstruction: predictions hold no features; leave --from-predictions out")
    if from_predictions and (no_maps or split is not None):
        option = "--no-maps" if no_maps else "--split"
        raise ConfigError(f"{option}: the predictions are written already; leave --from-predictions out")
    if from_predictions:
        results, config = open_results(run, overrides)
        with progress_bar("measuring", "samples") as listen:
            metrics = measure_again(results, config.eval, given_keys(overrides), notify=note, progress=listen)
    else:
        opened = open_run(run, overrides, checkpoint)
        results, config = opened.results, opened.config
        metrics = evaluate_run(
            opened, split=split or "test", maps=not no_maps, reconstruction=save_reconstruction
        )
    for path in exports:
        note(f"wrote {export(path, metrics, Predictions.open(results / PREDICTIONS_FILE))}")
    print_result(metrics, as_json=as_json, otherwise=Group(metrics_table(metrics), decisions_text(metrics)))
    try:
        found = compared_with_baseline(results, config)
    except RunError as error:
        note(f"note: {error}")
    else:
        if found is not None:
            err.print(paired_table(found))
            note(f"{found.sentence()}.")
