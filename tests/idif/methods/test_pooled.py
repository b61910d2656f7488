"""Baselines on pooled arrays against their definitions."""

from typing import Any

import numpy as np
import pytest
import torch

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.errors import ConfigError
from idif.methods.catalog import METHODS
from idif.methods.pooled.neighbors import PooledNeighbors
from idif.methods.pooling import Pooling
from idif.methods.protocol import Method
from idif.runs.run import method_context
from tests.helpers.run_arrays import RunArrays


def made(source: RunArrays, **section: Any) -> Method:
    config = Config.model_validate({"method": section})
    context = method_context(config, source.spec, source.index.view_numbers, ["weld"])
    torch.manual_seed(0)
    return METHODS[config.method.name].build(config.method, context)


def batch_of(source: RunArrays) -> Batch:
    (batch,) = source.batches(range(len(source.index)), len(source.index))
    return batch


def test_arrays_are_averaged_over_all_axes_but_the_channels() -> None:
    source = RunArrays((("train", 3),), {0: ("still 1",), 1: ("stills", "audio")})
    batch = batch_of(source)
    pooled = Pooling(("audio", "img_b20", "img_b31_mean"), source.spec)(batch)
    torch.testing.assert_close(pooled["audio"].vectors[0], batch.arrays["audio"][0].mean(dim=0))
    torch.testing.assert_close(pooled["img_b20"].vectors[0], batch.arrays["img_b20"][0, 1].mean(dim=0))
    torch.testing.assert_close(pooled["img_b31_mean"].vectors[2], batch.arrays["img_b31_mean"][2].mean(dim=0))
    assert pooled["audio"].present.tolist() == [True, False, True]
    assert pooled["img_b20"].present.tolist() == [True, False, True]
    assert not pooled["img_b20"].vectors[1].any()
    assert Pooling(None, source.spec).names == tuple(name for name in source.spec.features if name != "text")
    with pytest.raises(ConfigError, match="text: expected features of an input"):
        Pooling(("text",), source.spec)


def test_distances_are_those_of_the_definition() -> None:
    train, test = RunArrays((("train", 9),)), RunArrays((("test", 4),), shows_in=("audio",))
    method = made(train, name="pooled-neighbors", arrays=["audio"], neighbors=2)
    assert isinstance(method, PooledNeighbors)
    method.fit([batch_of(train)], seed=0)

    def unit(source: RunArrays) -> np.ndarray[Any, Any]:
        vectors = batch_of(source).arrays["audio"].double().mean(dim=1).numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    bank, queries = unit(train), unit(test)
    own = [np.sort(np.delete(1 - bank @ row, place))[:2].mean() for place, row in enumerate(bank)]
    exact = [(np.sort(1 - bank @ row)[:2].mean() - np.mean(own)) / np.std(own) for row in queries]
    scores = method.score(batch_of(test)).samples
    assert scores is not None
    np.testing.assert_allclose(scores.numpy(), exact, rtol=1e-4)


def test_fused_scores_are_the_mean_of_those_that_a_sample_has() -> None:
    train = RunArrays((("train", 9),))
    test = RunArrays((("test", 3),), {1: ("audio",), 2: ("audio", "sensor")})
    scores = {}
    for names in (["audio"], ["sensor"], ["audio", "sensor"]):
        method = made(train, name="pooled-neighbors", arrays=names)
        assert isinstance(method, PooledNeighbors)
        method.fit([batch_of(train)], seed=0)
        scores[tuple(names)] = method.score(batch_of(test)).samples
    audio, sensor, both = scores.values()
    assert audio is not None
    assert sensor is not None
    assert both is not None
    torch.testing.assert_close(both[0], (audio[0] + sensor[0]) / 2)
    torch.testing.assert_close(both[1], sensor[1])
    assert torch.isnan(both).tolist() == [False, False, True]


def test_the_autoencoder_ignores_what_is_missing() -> None:
    source = RunArrays((("test", 3),), {1: ("audio",)})
    method = made(source, name="pooled-autoencoder", arrays=["audio", "sensor"], widths=[4, 2])
    scores = method.score(batch_of(source)).samples
    assert scores is not None
    assert torch.isfinite(scores).all()
    widths = [layer.out_features for layer in method.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths == [4, 2, 4, 9]
