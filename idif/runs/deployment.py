"""The `Deployment` of a run's category: method, encoders, thresholds and caveats, to be exported."""

import torch

from idif.inference.export_graph import Deployment
from idif.progress import Notify, unheard
from idif.runs.files import read_facts
from idif.runs.fitted import fitted_scorer
from idif.runs.run import Run


def deployment_of(run: Run, category: str, notify: Notify = unheard) -> Deployment:
    """The `Deployment` of one category of a run.

    Raises:
        The exceptions of `fitted_scorer` and `Run.encoders`.
    """
    scorer, thresholds = fitted_scorer(run, category, torch.device("cpu"), notify)
    facts = read_facts(run.folder)
    return Deployment(
        category=category,
        scorer=scorer,
        encoders=run.encoders(),
        features=run.features(),
        view_numbers=run.view_numbers(),
        camera_names=tuple(run.camera_names().values()),
        limits=thresholds,
        caveats=tuple(facts.get("caveats", ())),
    )
