"""`method.mean_prior`: a new student predicts the mean training features, and learns deviations from them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.methods.idif.feature_distance import combine_maps
from idif.methods.idif.mean_features import MeanFeatures
from idif.methods.idif.model import IDIF
from tests.idif.methods.idif.test_model import LAYERS, VIEWS, inputs, make

ABSENT = (0, 2)
"""Sample and view that the samples lack."""


def samples(size: int = 32) -> tuple[list[Batch], dict[str, Tensor], Tensor]:
    """Four samples in two batches, their features, and the views that are present."""
    _, features, mask = inputs(batch=4, size=size)
    mask[ABSENT] = False
    batches = []
    for rows in torch.arange(4).split(3):
        shown = mask[rows]
        arrays = {name: values[rows] for name, values in features.items()}
        none = torch.zeros(len(rows), dtype=torch.bool)
        batches.append(Batch(rows, arrays, shown, torch.zeros_like(shown), none, ("cup",) * len(rows)))
    return batches, features, mask


def student(size: int = 32, **changes: Any) -> tuple[IDIF, dict[str, Tensor]]:
    """A new student that knows the means of `samples`, in eval mode, and the means {layer: [V,C,h,w]}."""
    batches, features, mask = samples(size)
    model = make(mean_prior=True, **changes)
    model.prepare(batches)
    return model.eval(), {name: means_of(values, mask) for name, values in features.items()}


def means_of(features: Tensor, mask: Tensor) -> Tensor:
    """By the definition, view by view, in float64."""
    values, kept = features.double().numpy(), mask.numpy()
    means = np.zeros(values.shape[1:])
    for view in range(values.shape[1]):
        units = [v / np.linalg.norm(v, axis=0) for v in values[kept[:, view], view]]
        means[view] = np.mean(units, axis=0) * len(values[0, view]) ** 0.5
    return torch.from_numpy(means).float()


def test_the_means_are_those_of_the_unit_features_of_present_views() -> None:
    batches, features, mask = samples()
    means = MeanFeatures(len(VIEWS), LAYERS)
    means.learn(batches)
    for layer in LAYERS:
        found = means(layer.name, torch.zeros(1, len(VIEWS), *layer.shape(32)))[0]
        torch.testing.assert_close(found, means_of(features[layer.name], mask), rtol=1e-6, atol=1e-6)


def test_a_camera_that_no_sample_has_has_no_mean() -> None:
    batches, _, _ = samples()
    for batch in batches:
        batch.view_mask[:, 1] = False
    means = MeanFeatures(len(VIEWS), LAYERS)
    means.learn(batches)
    found = means("layer1", torch.zeros(1, len(VIEWS), *LAYERS[0].shape(32)))[0]
    assert (found[1] == 0).all()
    assert (found[0] != 0).any()


@pytest.mark.parametrize("changes", [{}, {"fusion": "none", "bottleneck": False}])
def test_a_new_student_scores_by_the_distance_to_the_means(changes: dict[str, Any]) -> None:
    model, means = student(**changes)
    images, features, mask = inputs(batch=3)
    images = images[:3]
    predicted = {name: mean.expand(3, *mean.shape) for name, mean in means.items()}
    wanted = combine_maps(predicted, features, mask, (32, 32), "mean")
    with torch.no_grad():
        torch.testing.assert_close(model.anomaly_maps(model.encode(images, mask), features, mask), wanted)


def test_a_trained_student_is_exported_and_swept_with_its_means() -> None:
    model, _ = student(norm="batch")
    generator = torch.Generator().manual_seed(2)
    for emit in model.decoders.emit:
        for parameter in emit.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 10
    images, features, mask = inputs(batch=2)
    mask[0, 1] = False
    with torch.no_grad():
        encoded = model.encode(images, mask)
        wanted = model.anomaly_maps(encoded, features, mask)
        torch.testing.assert_close(
            model.export_module()(images, features, mask), wanted, atol=1e-6, rtol=1e-4
        )
        swept = model.subset_maps(encoded, features, mask[None])
    torch.testing.assert_close(swept, wanted[mask], atol=1e-5, rtol=1e-4)


def test_a_state_brings_the_sizes_of_its_means_along() -> None:
    model, means = student()
    other = make(mean_prior=True)
    other.load_state_dict(model.state_dict())
    assert other.decoders.means is not None
    found = other.decoders.means("layer2", torch.zeros(1, len(VIEWS), *LAYERS[1].shape(32)))[0]
    torch.testing.assert_close(found, means["layer2"])
    with pytest.raises(RuntimeError, match="mean0"):
        make(views=(1, 2), mean_prior=True).load_state_dict(model.state_dict())


def test_a_training_at_another_image_size_learns_its_own_means() -> None:
    small, _ = student(32)
    batches, features, mask = samples(64)
    model = make(mean_prior=True)
    model.load_state_dict(small.state_dict())
    model.prepare(batches)
    assert model.decoders.means is not None
    found = model.decoders.means("layer1", torch.zeros(1, len(VIEWS), *LAYERS[0].shape(64)))[0]
    torch.testing.assert_close(found, means_of(features["layer1"], mask), rtol=1e-6, atol=1e-6)
