"""The contract of methods, for every entry of `METHODS` and for one that is nothing like IDIF."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from idif.config.sections import Config
from idif.corruption.textures import load_textures
from idif.data.features import FeatureSource, FeatureSpec
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.encoders.live import LiveFeatures
from idif.encoders.options import EncoderOptions
from idif.methods.catalog import METHODS
from idif.methods.deco_diff.config import DeCoDiffConfig
from idif.methods.memory.config import PaDiMConfig, PatchCoreConfig
from idif.methods.protocol import Method, MethodContext
from idif.methods.section import MethodSection
from idif.runs.run import method_context
from idif.training.task import Task
from tests import method_contract as contract
from tests.helpers.run_arrays import INPUTS, RunArrays
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, untrained
from tests.helpers.tiny_vae import installed_vae
from tests.helpers.vector_encoder import signal_index
from tests.helpers.vector_method import ConfigWithVector, VectorConfig, installed_method

SIZE = 32
CPU = torch.device("cpu")
Cases = dict[str, contract.Case]


def _case(
    config: Config, source: FeatureSource, context: Callable[[FeatureSpec], MethodContext]
) -> contract.Case:
    spec = METHODS[config.method.name]

    def build(features: FeatureSpec) -> Method:
        torch.manual_seed(0)
        return spec.build(config.method, context(features))

    def task(folder: Path) -> Task:
        folder.mkdir(exist_ok=True)
        return Task("it", folder, source, list(range(5)), context(source.spec))

    return contract.Case(config, build, task, source)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    home = tmp_path_factory.mktemp("contract")
    with installed_method(), installed_vae():
        yield {**_image_cases(home), **_run_cases(), **_own_cases(home)}


def _image_cases(home: Path) -> Cases:
    """IDIF, each of its stages, and the other methods of images."""
    index = tiny_index(categories=("cup",), train=6, test=0)
    make_tiny_realiad(home, index)
    encoder = untrained()
    source = LiveFeatures(home, index, EncoderSet((encoder,), SIZE), CPU)
    textures = load_textures("procedural", SIZE, home)
    smallest = METHODS["idif"].smallest()
    flow = {"name": "msflow", "scales": ["layer1", "layer2", "layer3"], "blocks": [1, 1, 1]}
    sections: dict[str, MethodSection] = {
        "idif": smallest,
        "idif-batch-norm": smallest.model_copy(update={"norm": "batch"}),
        "idif-conv3d-mean": smallest.model_copy(
            update={"fusion": "conv3d", "bottleneck": False, "mean_prior": True}
        ),
        "idif-segmentation": smallest.model_copy(update={"head": "segmentation"}),
        "msflow": Config.model_validate({"method": flow}).method,
        "padim": METHODS["padim"].smallest(),
        "padim-diagonal": PaDiMConfig(covariance="diagonal", dimensions=None, smoothing=0),
        "patchcore": METHODS["patchcore"].smallest(),
        "patchcore-shared": PatchCoreConfig(bank="shared", coreset=1, neighbours=1, unit_length=False),
        "patchcore-window": PatchCoreConfig(window=1, smoothing=1),
    }

    def made(section: MethodSection) -> contract.Case:
        config = Config.model_validate({"method": section})

        def context(features: FeatureSpec) -> MethodContext:
            bare = method_context(config, features, index.view_numbers, ["cup"])
            return replace(bare, resources={"textures": textures}, encoders=(encoder,))

        return _case(config, source, context)

    return {name: made(section) for name, section in sections.items()}


def _own_cases(home: Path) -> Cases:
    """Methods with a source of their own."""
    return {
        "deco-diff": _deco_diff_case(home),
        "uniad": _uniad_case(home),
        "vector": _vector_case(home),
    }


def _deco_diff_case(home: Path) -> contract.Case:
    """With gates, and with the decoder at hand, as in evaluation."""
    root = home / "latents"
    index = tiny_index(categories=("cup",), train=6, test=0)
    make_tiny_realiad(root, index)
    encoder = load_encoder("untrained", "tiny_vae", EncoderOptions(crop_from=40))
    source = LiveFeatures(root, index, EncoderSet((encoder,), SIZE), CPU)
    gates = {"gating": {"used": True, "loss": 0.1}}
    section = DeCoDiffConfig.model_validate(METHODS["deco-diff"].smallest().model_dump() | gates)
    config = Config(method=section)

    def context(features: FeatureSpec) -> MethodContext:
        return replace(method_context(config, features, (1, 2, 3), ["cup"]), encoders=(encoder,))

    return _case(config, source, context)


def _uniad_case(home: Path) -> contract.Case:
    root = home / "aligned"
    index = tiny_index(categories=("cup",), train=6, test=0)
    make_tiny_realiad(root, index)
    encoder = load_encoder("untrained", "resnet18", EncoderOptions(neck="aligned"))
    source = LiveFeatures(root, index, EncoderSet((encoder,), SIZE), CPU)
    config = Config(method=METHODS["uniad"].smallest())
    return _case(config, source, lambda features: method_context(config, features, (1, 2, 3), ["cup"]))


def _run_cases() -> Cases:
    """Methods of runs with several inputs, some of which are missing."""
    lacking = {1: ("audio", "still 1"), 2: ("video", "sensor"), 3: ("stills",), 4: INPUTS}
    source = RunArrays((("train", 6),), lacking)
    smallest = METHODS["causal-film"].smallest()
    sections: dict[str, MethodSection] = {
        "pooled-neighbors": METHODS["pooled-neighbors"].smallest(),
        "causal-film": smallest,
        "causal-film-ema": smallest.model_copy(update={"target": "ema", "input_dropout": 0.3}),
        "causal-film-fixed": smallest.model_copy(update={"target": "detach", "views": "mean"}),
        "pooled-autoencoder": METHODS["pooled-autoencoder"].smallest(),
        "supcon": METHODS["supcon"].smallest().model_copy(update={"cross_entropy": 0.1}),
    }

    def made(section: MethodSection) -> contract.Case:
        config = Config.model_validate({"method": section})
        return _case(config, source, lambda features: method_context(config, features, (1, 2), ["weld"]))

    return {name: made(section) for name, section in sections.items()}


def _vector_case(home: Path) -> contract.Case:
    root = home / "signals"
    index = signal_index(root, train=6, test=0)
    source = LiveFeatures(root, index, EncoderSet((load_encoder("untrained", "vector"),), None), CPU)
    config = ConfigWithVector(method=VectorConfig())
    return _case(config, source, lambda features: method_context(config, features, (), ["weld"]))


TRAINED = ["idif", "idif-batch-norm", "idif-conv3d-mean", "idif-segmentation", "msflow"]
FITTED = [
    "padim",
    "padim-diagonal",
    "patchcore",
    "patchcore-shared",
    "patchcore-window",
    "pooled-neighbors",
]
ALONE = [
    "causal-film",
    "causal-film-ema",
    "causal-film-fixed",
    "pooled-autoencoder",
    "supcon",
    "deco-diff",
    "uniad",
    "vector",
]
"""Methods with a source of their own, trained too."""
LIKE_OTHERS = {"idif-batch-norm", "idif-conv3d-mean"}
"""Variants that resume by the same code as others."""
NAMES = [*TRAINED, *FITTED, *ALONE]


def test_every_method_is_under_contract(cases: Cases) -> None:
    assert list(cases) == NAMES
    assert {case.config.method.name for case in cases.values()} == set(METHODS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "check",
    [
        contract.check_it_is_of_the_kind_that_its_config_says,
        contract.check_absent_views_and_inputs_have_no_influence,
        contract.check_scores_depend_on_no_other_sample,
        contract.check_the_state_makes_an_equal_method,
        contract.check_the_same_draws_and_samples_teach_the_same,
        contract.check_it_reads_only_what_it_needs,
        contract.check_export_gives_the_scores,
        contract.check_own_view_scores_can_be_exported_and_are_of_one_view_each,
        contract.check_subsets_are_scored_as_if_the_rest_were_absent,
        contract.check_a_prediction_of_the_stored_features_is_at_no_distance,
        contract.check_independent_views_are_scored_alike_whatever_is_hidden,
        contract.check_a_fit_depends_on_no_batch_size_and_can_be_extended,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_contract(cases: Cases, name: str, check: Callable[[contract.Case], None]) -> None:
    check(cases[name])


@pytest.mark.parametrize("name", [*TRAINED, *ALONE])
def test_losses_are_finite_and_reach_every_parameter(cases: Cases, name: str) -> None:
    contract.check_losses_are_finite_and_reach_every_parameter(cases[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in LIKE_OTHERS else ())
        for name in (*TRAINED, *ALONE)
    ],
)
def test_resumed_equals_uninterrupted(cases: Cases, name: str, tmp_path: Path) -> None:
    contract.check_resumed_equals_uninterrupted(cases[name], tmp_path)
