"""The categories of photographs, told by a run's probe."""

from collections.abc import Sequence

from cli.terminal.console import note, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.sources import Sources
from idif.data.features import FeatureSource
from idif.inference.category_probe import CategoryProbe
from idif.inference.photo_grouping import PredictInput
from idif.runs.category_probe import recognize_parts, require_probe
from idif.runs.run import Run


def recognize(run: Run, parts: Sequence[PredictInput]) -> list[PredictInput]:
    """The parts; those of the category ``auto`` with the one that the run's probe tells.

    Raises:
        RunError: the run has one category, or no probe and no training samples at hand.
    """
    probe = probe_of(run)
    with progress_bar("recognizing categories", "parts") as listen:
        return recognize_parts(run, probe, parts, evaluation_device(), progress=listen)


def probe_of(run: Run) -> CategoryProbe:
    """See `require_probe`."""

    def training_samples() -> FeatureSource:
        sources = Sources(run.config, evaluation_device(), compare=False)
        return sources.unplaced(run.known_categories(), "train")

    with progress_bar("pooling stored features", "samples") as listen:
        return require_probe(run, training_samples, progress=listen, notify=note)
