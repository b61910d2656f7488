"""The overfit alarm: anomalous samples against normal ones trained on, beside the evaluated ones."""

import pytest
import torch
from torch import Tensor

from idif.config.sections import Config, TrainConfig
from idif.data.batch import Batch
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.randomness import Draws
from idif.training.validation import OVERFIT_GAP, TRAIN_S_AUROC, Validation, overfit_warning
from tests.helpers.run_arrays import RunArrays


class KnowsByHeart(TrainedMethod):
    """Scores training samples 0, anomalous ones 1, and every other normal one more than that."""

    draws_maps = False
    needs = Needs(training=(), scoring=("sensor",))

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.trained = trained

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        raise NotImplementedError

    def score(self, batch: Batch) -> Scores:
        own = torch.where(batch.rows % 4 < 2, 0.5, 1.5) if self.trained else torch.full((len(batch),), 0.5)
        samples = torch.where(batch.sample_labels, 1.0, own)
        return Scores(views=torch.zeros(batch.view_mask.shape), samples=samples)

    def describe(self) -> dict[str, str]:
        return {}


def test_the_gap_is_logged_and_told_above_the_limit() -> None:
    config = Config.model_validate({"method": {"name": "causal-film"}})
    assert config.train.overfit_alarm == 0.05
    evaluated, trained = RunArrays((("test", 24),)), RunArrays((("train", 6),))
    apart = Validation(config, torch.device("cpu"), lambda: evaluated, trained=lambda: trained)
    figures = apart(KnowsByHeart(trained=False), 1).figures
    assert figures == {"s_auroc": 1.0, TRAIN_S_AUROC: 1.0, OVERFIT_GAP: 0.0}
    assert overfit_warning(config.train, figures) is None
    figures = {"s_auroc": 0.6, TRAIN_S_AUROC: 0.9, OVERFIT_GAP: 0.3}
    told = overfit_warning(config.train, figures)
    assert told is not None
    assert "60.0 % against others (train.overfit_alarm: 0.05)" in told
    assert overfit_warning(TrainConfig(), figures) is None


@pytest.mark.parametrize("alarm", [None, 0.05])
def test_only_a_training_with_the_alarm_scores_its_training_samples(alarm: float | None) -> None:
    config = Config.model_validate({"method": {"name": "causal-film"}, "train": {"overfit_alarm": alarm}})

    def trained() -> RunArrays:
        opened.append(True)
        return RunArrays((("train", 6),))

    opened: list[bool] = []
    validation = Validation(config, torch.device("cpu"), lambda: RunArrays((("test", 24),)), trained=trained)
    figures = validation(KnowsByHeart(trained=True), 1).figures
    assert bool(opened) == (alarm is not None) == (OVERFIT_GAP in figures)
