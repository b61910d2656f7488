"""Writes the report of runs, with images from their stores or datasets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cli.terminal.console import note, progress_bar
from cli.workflow.evaluate import evaluate_run
from cli.workflow.sources import Sources
from idif.config.sections import Config
from idif.data.index import Split
from idif.datasets.readers import reader_of
from idif.errors import ConfigError, IdifError
from idif.missing_views.explanation import Explanation, explain
from idif.report import ImageLoader, RecordingLoader, write_report
from idif.report.decisions import Costs
from idif.report.gallery import Images
from idif.report.recordings import Examined
from idif.runs.files import EVALUATE_AGAIN, METRICS_FILE
from idif.runs.outdated import outdated_models
from idif.runs.run import Run, open_run, run_home
from idif.sealed_json import read_sealed


def report_run(runs: Sequence[Run]) -> Path:
    """Write the report of opened runs; returns its path."""
    return write({run.results: run.config for run in runs})


def write(configs: Mapping[Path, Config], costs: Costs | None = None) -> Path:
    """Write the report of evaluated runs, each with its config; returns its path."""
    with progress_bar("writing the report", "categories") as listen:
        return write_report(
            list(configs),
            images=_clean_images(configs),
            recordings=_recordings(configs),
            costs=costs,
            progress=listen,
        )


def evaluate_checkpoints(runs: Sequence[Path], overrides: Sequence[str]) -> None:
    """Evaluate the last checkpoints of runs that have none or only outdated metrics."""
    for path in runs:
        metrics = path / METRICS_FILE
        if metrics.exists():
            protocol = read_sealed(metrics, EVALUATE_AGAIN, ("protocol",))["protocol"]
            if not outdated_models(protocol, run_home(path)):
                continue
        note(f"{path}: evaluating its last checkpoint first")
        evaluate_run(open_run(path, overrides, "last"))


def _clean_images(configs: Mapping[Path, Config]) -> ImageLoader:
    """A loader of images from each run's store, or from its dataset for runs without a store."""
    sources: dict[Path, Sources] = {}
    told: set[str] = set()

    def load(run: Path, category: str, split: Split, sample_ids: Sequence[str]) -> dict[str, Images]:
        try:
            if run not in sources:
                sources[run] = Sources(configs[run], torch.device("cpu"), compare=False)
            return read_images(sources[run], category, split, sample_ids)
        except IdifError as error:
            if str(error) not in told:
                note(f"note: the report shows no photographs of {category}: {error}")
            told.add(str(error))
            raise

    return load


def _recordings(configs: Mapping[Path, Config]) -> RecordingLoader:
    """A loader of samples that are more than images, from each run's dataset; scores are explained by its
    model on its store."""

    def load(run: Path, category: str, split: Split, sample_ids: Sequence[str]) -> dict[str, Examined] | None:
        config = configs[run]
        read = reader_of(config.data).recording
        if read is None:
            return None
        if config.data.root is None:
            raise ConfigError("data.root: needed for the files of the samples; got nothing")
        sources = Sources(config, torch.device("cpu"), compare=False)
        source = sources.unplaced([category], split)
        places = {sample.sample_id: row for row, sample in enumerate(source.index.samples)}
        rows = [places[sample_id] for sample_id in sample_ids if sample_id in places]
        explanations: Sequence[Explanation | None] = [None] * len(rows)
        try:
            scorer = open_run(run_home(run)).scorer(category, source, torch.device("cpu"))
            explanations = explain(scorer, source, rows)
        except IdifError as error:
            note(f"note: the report does not say where scores came from: {error}")
        samples = [source.index.samples[row] for row in rows]
        return {
            sample.sample_id: Examined(read(config.data, sample), explanation)
            for sample, explanation in zip(samples, explanations, strict=True)
        }

    return load


def read_images(
    sources: Sources, category: str, split: Split, sample_ids: Sequence[str]
) -> dict[str, Images]:
    """Clean images by sample id, from the store or the dataset."""
    source = sources.unplaced([category], split)
    wanted = set(sample_ids)
    rows = source.index.rows(lambda sample: sample.sample_id in wanted)
    samples = (source.index.samples[row] for row in rows)
    return {
        sample.sample_id: images for sample, images in zip(samples, sources.images(source, rows), strict=True)
    }
