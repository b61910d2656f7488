"""The `Deployment` of a run's category: method, encoders, thresholds and caveats, to be exported."""

import torch

from idif.evaluation.scoring import Scorer
from idif.inference.export_graph import Deployment
from idif.progress import Notify, unheard
from idif.runs.files import read_facts
from idif.runs.fitted import load_decision
from idif.runs.run import Run


def deployment_of(run: Run, category: str, notify: Notify = unheard) -> Deployment:
    """The `Deployment` of one category of a run.

    Raises:
        The exceptions of `load_decision`, `Run.method` and `Run.encoders`.
    """
    features, numbers = run.features(), run.view_numbers()
    decision = load_decision(run, category, notify)
    facts = read_facts(run.folder)
    method = run.method(run.model_name(category), features, numbers)
    return Deployment(
        category=category,
        scorer=Scorer(decision.rules, method, torch.device("cpu"), decision.calibration),
        encoders=run.encoders(),
        features=features,
        view_numbers=numbers,
        camera_names=tuple(run.camera_names().values()),
        limits=decision.thresholds,
        caveats=tuple(facts.get("caveats", ())),
    )
