"""`idif app`: serve a run as a web page."""

import functools
import importlib.util
import ipaddress
import json
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result
from cli.terminal.signals import Terminated
from cli.workflow.categories import probe_of
from cli.workflow.device import evaluation_device
from cli.workflow.report import read_images
from cli.workflow.sources import Sources
from idif.app.session import AppSession, Settings, TestSamples, Trained
from idif.data.index import Sample
from idif.errors import ConfigError, IdifError
from idif.evaluation.predictions import Predictions
from idif.inference.predict import require_images
from idif.runs.files import read_config, read_facts
from idif.runs.fitted import fitted_scorer, load_color_limits, load_evaluated, other_settings
from idif.runs.run import Run, open_run

MIN_PASSWORD = 8
"""Characters."""


def serve_page(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines can reach needs --password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; default: the first free port from 7860 on.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="IDIF_APP_PASSWORD", help="Password of visitors; their user name is idif."),
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Serve a page that scores photographs: switch cameras off, move the threshold, view anomaly maps.

    Listens on this machine only, unless --host is given, and runs until Ctrl-C. Test samples can be selected
    if the run's store or dataset is available. In a run of several categories the photographs tell the
    category (`auto`); options of the run's method, such as DeCo-Diff's reverse steps, can be changed. Needs
    the extra `app`.

    Examples:

        idif app runs/realiad

        IDIF_APP_PASSWORD=... idif app runs/realiad --host 0.0.0.0 --port 8080
    """
    _check_address(host, password)
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError(
            "idif app: needs Gradio, which is not installed; install idif with its extra `app`, "
            'e.g. pip install -e ".[app]" in its folder'
        )
    opened = open_run(run, overrides)
    require_images(opened.features())
    with tempfile.TemporaryDirectory(prefix="idif-uploads-", ignore_cleanup_errors=True) as uploads:
        # read by Gradio at import: folder of uploads, no telemetry
        os.environ |= {
            "GRADIO_TEMP_DIR": uploads,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        from idif.app import page

        session, notes = _open_session(opened, overrides, Path(uploads))
        built = page.build(session, opened.config.run.name, [*_caveats(opened), *notes])
        try:
            address = page.serve(built, host, port, password, Path(uploads))
            print_result({"url": address}, as_json=as_json, otherwise=f"{address}  (stop with Ctrl-C)")
            wait_until_stopped()
        finally:
            built.close(verbose=False)


def wait_until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM, which end the command normally; prints nothing."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Terminated:
        raise typer.Exit(143) from None


def _check_address(host: str, password: str | None) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not password:
        raise ConfigError(
            f"--host {host}: other machines could reach the page, so a password is needed; give --password "
            "or set IDIF_APP_PASSWORD"
        )
    if password == "":
        raise ConfigError("--password: expected a password, got an empty one")
    if password is not None and len(password) < MIN_PASSWORD:
        raise ConfigError(
            f"--password: expected at least {MIN_PASSWORD} characters, got {len(password)}; short ones are "
            "guessed"
        )


def _open_session(run: Run, overrides: Sequence[str], uploads: Path) -> tuple[AppSession, list[str]]:
    """Open the run for the page; returns the session and notes about unavailable features.

    Args:
        overrides: those that the run was opened with.
    """
    numbers, device = run.view_numbers(), evaluation_device()
    categories, notes = run.known_categories(), []
    samples = probe = None
    try:
        sources = Sources(run.config, device, compare=False)
        samples = _samples(sources, categories)
    except IdifError as error:
        note(f"note: test samples cannot be selected: {error}")
        notes.append("Test samples cannot be selected: neither the run's store nor its dataset is available.")
    if len(categories) > 1:
        try:
            probe = probe_of(run)
        except IdifError as error:
            note(f"note: categories are not told by photographs: {error}")
            notes.append("Categories are not told by photographs: the terminal of idif app says why.")
        else:
            notes.append(probe.sentence())

    def load(category: str, settings: Settings) -> Trained:
        changed = [f"method.{key}={json.dumps(value)}" for key, value in settings]
        opened = replace(run, config=read_config(run.folder, [*overrides, *changed]))
        return _trained(opened, category, device)

    options = run.config.method.inference_options
    session = AppSession(
        encoders=run.encoders(),
        view_numbers=numbers,
        categories=tuple(categories),
        device=device,
        load=load,
        samples=samples,
        probe=probe,
        options=options,
        defaults=tuple((option.key, _value(run.config.method, option.key)) for option in options),
        uploads=uploads,
        cameras=run.named_cameras(),
    )
    return session, notes


def _value(section: Any, key: str) -> bool | int | str:
    """The value of a dotted key."""
    value: bool | int | str = functools.reduce(getattr, key.split("."), section)
    return value


def _samples(sources: Sources, categories: tuple[str, ...]) -> TestSamples:
    index = sources.unplaced(categories, "test").index
    by_category: dict[str, list[Sample]] = {category: [] for category in categories}
    for sample in index.samples:
        by_category[sample.category].append(sample)

    def images(sample: Sample) -> npt.NDArray[np.uint8]:
        return read_images(sources, sample.category, "test", [sample.sample_id])[sample.sample_id]

    def masks(sample: Sample) -> npt.NDArray[np.bool_]:
        source = sources.unplaced([sample.category], "test")
        rows = source.index.rows(lambda other: other.sample_id == sample.sample_id)
        return next(sources.masks(source, rows))

    return TestSamples(by_category, images, masks)


def _trained(run: Run, category: str, device: torch.device) -> Trained:
    scorer, thresholds = fitted_scorer(run, category, device, note)
    return Trained(
        scorer,
        thresholds,
        load_color_limits(run, category, note),
        _scores(run, category),
        other_settings(run, scorer.method),
        load_evaluated(run, category),
    )


def _scores(run: Run, category: str) -> tuple[float, float] | None:
    """Lowest and highest score of the category's test samples; None if there are none."""
    path = run.results / "predictions.h5"
    if not path.exists():
        return None
    predictions = Predictions.open(path)
    scores = predictions.sample_scores[predictions.rows(category)]
    finite = scores[np.isfinite(scores)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _caveats(run: Run) -> list[str]:
    """The caveats recorded in the run's ``environment.json``."""
    return [str(caveat) for caveat in read_facts(run.folder).get("caveats", [])]
