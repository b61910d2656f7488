"""Checkpoints of MSFlow's authors: equal maps, both orders of the fusion graph, and files that do not fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idif.errors import WeightsError
from idif.methods.catalog import METHODS
from idif.methods.maps import MAP
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.msflow.model import MSFlow
from idif.methods.protocol import Scores
from idif.runs.import_weights import load_imported
from idif.runs.run import method_context
from tests.idif.methods.msflow.authors_layout import checkpoint
from tests.idif.methods.msflow.pooled_features import PooledFeatures, make_config, make_model

SPEC = METHODS["msflow"]


def trained() -> MSFlow:
    """A model whose every tensor differs from a new one's."""
    model = make_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for name, order in model.named_buffers():
        assert name.endswith("order")
        order.copy_(torch.randperm(len(order), generator=generator))
    return model.eval()


def imported(path: Path, **method: Any) -> MSFlow:
    source = PooledFeatures()
    config = make_config()
    section = MSFlowConfig.model_validate(config.method.model_dump() | method)
    context = method_context(config, source.spec, (1, 2), ["cup"])
    assert SPEC.import_weights is not None
    weights = SPEC.import_weights(section, context, path)
    model = SPEC.build(section, context)
    load_imported(model, weights.method, path)
    assert isinstance(model, MSFlow)
    return model.eval()


@torch.no_grad()
def scores(model: MSFlow) -> Scores:
    (batch,) = PooledFeatures().batches(range(6), 6)
    return model.score(batch)


@pytest.mark.parametrize("graph_order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("joined_heads", [True, False])
def test_maps_are_those_of_the_model_it_came_from(
    tmp_path: Path, graph_order: tuple[int, int], joined_heads: bool
) -> None:
    model, path = trained(), tmp_path / "best_det.pt"
    torch.save(checkpoint(model, graph_order, joined_heads=joined_heads), path)
    wanted, found = scores(model), scores(imported(path))
    for name in (MAP, "product"):
        torch.testing.assert_close(found.maps[name], wanted.maps[name], rtol=0, atol=1e-6)
    assert (scores(make_model().eval()).maps[MAP] - wanted.maps[MAP]).abs().max() > 0.01


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["fusion_flow"].pop(name)


def _add_tensor(saved: dict[str, Any]) -> None:
    saved["fusion_flow"]["module_list.2.extra.weight"] = torch.ones(3)


def _drop_block(saved: dict[str, Any]) -> None:
    saved["parallel_flows"].pop(1)


def _spoil_inverse(saved: dict[str, Any]) -> None:
    saved["parallel_flows"][0]["module_list.0.w_perm_inv"] = torch.eye(8)[:, :, None, None]


def _spoil_order(saved: dict[str, Any]) -> None:
    saved["fusion_flow"]["module_list.0.perm"] = torch.zeros(8, dtype=torch.int64)


def _spoil_matrix(saved: dict[str, Any]) -> None:
    saved["parallel_flows"][0]["module_list.0.w_perm"] = torch.rand(8, 8, 1, 1)


def _rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        saved["fusion_flow"] = {
            name.replace(old, new): tensor for name, tensor in saved["fusion_flow"].items()
        }

    return change


def _third_half(saved: dict[str, Any]) -> None:
    for name, tensor in list(saved["fusion_flow"].items()):
        if ".subnet1." in name:
            saved["fusion_flow"][name.replace("subnet1", "subnet3")] = tensor


@pytest.mark.parametrize(
    ("change", "joined", "message"),
    [
        (_without("module_list.1.perm"), True, r"it has no tensor for 'fusion\.permutations\.1\.order'"),
        (
            _without("module_list.2.subnet1.mix.1.bias"),
            True,
            r"no tensor for 'fusion\.from_first\.mix\.1\.bias'",
        ),
        (_without("module_list.2.subnet2.shift_convs.0.bias"), False, r"shape \[4\], expected \[8\]"),
        (_add_tensor, True, r"there is no place for 'fusion_flow\.module_list\.2\.extra\.weight'"),
        (_drop_block, True, r"has 0 blocks of 12 channels; the config's method\.blocks gives 2 for p2"),
        (_spoil_inverse, True, r"w_perm_inv is not the inverse of "),
        (_spoil_order, True, r"module_list\.0\.perm is no permutation"),
        (_spoil_matrix, True, r"w_perm is no permutation matrix"),
        (_rename("subnet1", "former"), True, r"which subnet .* is not determined by the names"),
        (_rename("shift_", "other_"), False, r"gives the log-scale and which the shift is not determined"),
        (_third_half, True, r"expected two subnets of the fusion flow, .* found 3"),
        (
            lambda saved: saved.pop("parallel_flows"),
            True,
            r"expected a checkpoint of MSFlow with tensors named",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], joined: bool, message: str
) -> None:
    saved, path = checkpoint(make_model(), joined_heads=joined), tmp_path / "last.pt"
    change(saved)
    torch.save(saved, path)
    with pytest.raises(WeightsError, match=message) as error:
        imported(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_scales_of_equal_width_are_refused(tmp_path: Path) -> None:
    source, config = PooledFeatures(), make_config()
    section = MSFlowConfig(scales=("p1", "p2"), blocks=(1, 2), position_channels=4)
    (encoder,) = source.spec.encoders
    arrays = tuple(replace(array, shape=(8, *array.shape[1:])) for array in encoder.arrays)
    features = replace(source.spec, encoders=(replace(encoder, arrays=arrays),))
    context = method_context(config, features, (1, 2), ["cup"])
    assert SPEC.import_weights is not None
    with pytest.raises(WeightsError, match="two scales of the config have as many: 8, 8"):
        SPEC.import_weights(section, context, tmp_path / "last.pt")


def test_objects_beside_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": make_model()}, path)
    with pytest.raises(WeightsError, match="not readable as encoder weights"):
        imported(path)
    with pytest.raises(WeightsError, match="no such weights file"):
        imported(tmp_path / "none.pt")
