"""`Scorer`: which of a method's answers become view and sample scores, by ``eval.score``."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.batch import Batch
from idif.errors import CannotFinish
from idif.evaluation.calibration import Calibration
from idif.methods.protocol import Method, Needs, Scores
from tests.helpers.stubs import InMemory, scorer

SOURCE = InMemory(torch.tensor([[True, True], [True, False]] * 2), torch.zeros(4, 2, dtype=torch.bool))


class Answers(Method):
    """Maps, views' scores and samples' scores that have nothing to do with each other, each where asked."""

    def __init__(self, *, maps: bool = True, views: bool = True, samples: bool = False) -> None:
        super().__init__()
        self.needs, self.draws_maps = Needs((), ()), maps
        self.answers = maps, views, samples

    def score(self, batch: Batch) -> Scores:
        maps, views, samples = self.answers
        rows = batch.rows.float()
        return Scores(
            {"map": batch.images.float().mean(dim=2) + 1000} if maps else {},
            torch.stack([rows + 0.25, rows + 0.5], dim=1) if views else None,
            -rows if samples else None,
        )

    def describe(self) -> dict[str, str]:
        raise NotImplementedError


def view_scores(rule: Literal["max", "topk", "method"], method: Method) -> Tensor:
    used = scorer(EvalConfig(score=rule, top_k=1, batch_size=3), method)
    return torch.cat([part.views for part in used.batches(SOURCE, range(4))])


def test_the_rule_says_whether_the_map_or_the_method_gives_the_views_scores() -> None:
    own = torch.arange(4.0)[:, None] + torch.tensor([0.25, 0.5])
    brightest = SOURCE.images.float().mean(dim=2).amax(dim=(2, 3)) + 1000
    assert torch.equal(view_scores("method", Answers()), own)
    torch.testing.assert_close(view_scores("max", Answers()), brightest)
    torch.testing.assert_close(view_scores("topk", Answers()), brightest)
    torch.testing.assert_close(view_scores("method", Answers(views=False)), brightest)
    assert torch.equal(view_scores("max", Answers(maps=False)), own)


def test_a_method_s_own_sample_scores_are_not_reduced_from_views() -> None:
    used = scorer(EvalConfig(batch_size=3), Answers(samples=True), Calibration((1.0, 1.0), (2.0, 4.0), 5))
    scores = used.collect(SOURCE, [3, 1, 0, 2], title="scoring")
    views, samples = used.final(scores)
    assert samples.tolist() == [-3.0, -1.0, 0.0, -2.0]
    np.testing.assert_allclose(views, (scores.views - 1) / np.array([2, 4]), rtol=1e-6)
    assert scores.present.tolist() == [[True, False], [True, False], [True, True], [True, True]]
    reduced = used.calibrated(None).final(scores._replace(samples=None))[1]
    np.testing.assert_allclose(reduced, np.where(scores.present, scores.views, -1).max(axis=1), rtol=1e-6)


def test_a_sample_score_that_is_not_finite_names_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = torch.tensor([0.0, torch.nan])
    monkeypatch.setattr(Answers, "score", lambda *_: Scores(views=torch.zeros(2, 2), samples=nothing))
    with pytest.raises(CannotFinish, match="cup/S0003: the anomaly score is not finite"):
        list(scorer(EvalConfig(), Answers(maps=False)).batches(SOURCE, [2, 3]))
