"""Every shipped config by the commands, on tiny data: a store, two steps or a fit, an evaluation, an export.

Untrained encoders and smaller sizes stand in for the real ones; nothing else of a config is changed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.methods import main as time_methods
from cache import FeatureStore
from cli.__main__ import run
from cli.workflow.store_choice import arrays_needed, choose_store
from idif.config.loader import load_configs
from idif.config.sections import Config, RunConfig
from idif.data.features import FeatureSpec
from idif.datasets.readers import READERS
from idif.errors import StoreDamaged
from idif.methods.catalog import METHODS
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.helpers.tiny_weld import IMAGE_SIZE, make_tiny_weld

CONFIGS = Path(__file__).parents[2] / "configs"
TABLE_3 = "ablations/table3.yaml"
OTHERS = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")} - {TABLE_3}
WELD_NAMES = sorted(name for name in OTHERS if name.startswith("causal-film"))
"""Those of weld runs, which read no photographs in the layout of the others."""
NAMES = [TABLE_3, *sorted(OTHERS - {*WELD_NAMES})]
"""The matrix first: it trains the rows that the other ablations are."""
LIKE_OTHERS = {"deco-diff-mvtec.yaml", "msflow-visa.yaml", "uniad-visa.yaml"}
"""Configs that another one contains, but for paths and names: `make test-long` trains them too."""
SMALL_METHODS = {
    "deco-diff": [
        "method.size=XS",
        "method.width=32",
        "method.patch_sizes=[1, 2]",
        "method.patch_probabilities=[0.5, 0.5]",
        "method.reverse_steps=2",
        "train.accumulate=1",
    ],
    "idif": [
        "method.voxel={depth: 2, height: 2, width: 2, channels: 16}",
        "method.attention_heads=2",
        "method.blocks=1",
        "corruption.textures=procedural",
    ],
    "msflow": ["method.blocks=[1, 1, 1]", "method.position_channels=4", "train.sub_epochs=1"],
    "padim": ["method.dimensions=8"],
    "patchcore": ["method.projection=8"],
    "uniad": [
        "method.width=16",
        "method.attention_heads=2",
        "method.encoder_layers=1",
        "method.decoder_layers=1",
        "method.feedforward=32",
        # the real one would hide the whole of so small a grid
        "method.neighbor_mask.size=[1, 1]",
    ],
}
SMALL_ENCODERS = {
    "sd_vae": "taef2",
    "tf_efficientnet_b4": "tf_efficientnet_b0",
    "timm:vit_base_patch16_dinov3": "timm:vit_small_patch16_dinov3",
    "wide_resnet50_2": "resnet18",
}
"""Encoder -> a smaller one of its family."""
STARTS_FROM = {"mvtec3d-256.yaml": "mvtec3d.yaml"}
"""Config -> the config whose run it continues."""
SIZES = {"mvtec3d-256.yaml": 48}
"""Side of the images where it is not 32 pixels."""
VIEWS = 2
"""Cameras of configs that name no rig."""
NOT_EXPORTED = ("msflow",)


class Home:
    """Datasets, stores and runs of all configs, each made when it is first needed."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], runs: dict[str, Path], graphs: set[str]
    ) -> None:
        """Below ``folder``.

        Args:
            runs: the finished runs by their config, which equal configs share.
            graphs: the sections that decide the exported graph, of the runs that are exported.
        """
        self.folder, self._capsys, self._runs, self._graphs = folder, capsys, runs, graphs

    def command(self, *line: str) -> dict[str, Any]:
        """Run a command that must succeed; returns its JSON."""
        self._capsys.readouterr()
        code = run([*line, "--json"])
        printed = self._capsys.readouterr()
        assert code == 0, (line, printed.err)
        answer: dict[str, Any] = json.loads(printed.out)
        return answer

    def trained(self, name: str) -> list[Path]:
        """The run folders of a config; what two configs have in common is trained once."""
        options = self._options(name)
        configs = load_configs(CONFIGS / name, options)
        keys = [config.model_copy(update={"run": RunConfig()}).to_yaml() for config in configs]
        if not all(key in self._runs for key in keys):
            settings = [f"--config={CONFIGS / name}", *(f"--set={option}" for option in options)]
            assert isinstance(configs[0].cache.store, Path)
            if not configs[0].cache.store.exists():
                self.command("cache", "build", "realiad", *settings)
            answer = self.command("train", *settings)
            assert [each["run"] for each in answer["runs"]] == [str(config.folder) for config in configs]
            for key, config in zip(keys, configs, strict=True):
                self._runs[key] = self._checked(config)
        return [self._runs[key] for key in keys]

    def _checked(self, config: Config) -> Path:
        """The folder of a new run, evaluated and exported."""
        place, method = config.folder, config.method
        (log,) = place.glob("*/log.jsonl")
        lines = list(map(json.loads, log.read_text(encoding="utf-8").splitlines()))
        assert len(lines) == 1 if method.fitted else len([line for line in lines if "loss" in line]) == 2
        if not (place / "metrics.json").exists():  # which the matrix leaves
            self.command("eval", str(place))
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        assert 0 <= metrics["mean"]["s_auroc"] <= 1
        assert 0 <= metrics["mean"]["p_auroc"] <= 1
        if method.name in NOT_EXPORTED:
            assert run(["export", str(place)]) == 2
            assert "cannot be exported" in self._capsys.readouterr().err
            return place
        graph = "".join(part.model_dump_json() for part in (config.data, config.teacher, method, config.eval))
        if graph not in self._graphs:
            (file,) = self.command("export", str(place), "--format=torchscript")["files"]
            assert Path(file["path"]).is_file()
            self._graphs.add(graph)
        return place

    def _options(self, name: str) -> list[str]:
        """Settings that make a config small and name its places."""
        first, *_ = load_configs(CONFIGS / name)
        options = [
            "teacher.weights=untrained",
            f"teacher.image_size={SIZES.get(name, 32)}",
            f"run.dir={(self.folder / 'runs').as_posix()}",
            "run.tracking=none",
            *SMALL_METHODS[first.method.name],
        ]
        if first.teacher.encoder in SMALL_ENCODERS:
            options.append(f"teacher.encoder={SMALL_ENCODERS[first.teacher.encoder]}")
        if first.teacher.crop_from is not None:
            options.append("teacher.crop_from=40")
        if not first.method.fitted:
            options += ["train.epochs=1", "train.batch_size=2"]
        if getattr(first.method, "head", None) == "segmentation":
            options.append("method.head_epochs=1")
        if name in STARTS_FROM:
            (start,) = self.trained(STARTS_FROM[name])
            options.append(f"train.init={start.as_posix()}")
        views = len(first.data.rig or ()) or VIEWS
        chosen, *_ = load_configs(CONFIGS / name, options)
        data = [f"data.root={self._data(views)}", "data.images=realiad_256"]
        return [*options, *data, f"cache.store={self._store(chosen, views)}"]

    def _data(self, views: int) -> str:
        folder = self.folder / f"data-{views}"
        if not folder.exists():
            # of two views the anomalous sample would lack the one that shows its defect
            index = tiny_index(categories=("cup",), train=4, test=2, views=views, absent=views > 2)
            make_tiny_realiad(folder, index)
            write_annotations(folder, index)
        return folder.as_posix()

    def _store(self, config: Config, views: int) -> str:
        """The store's place, which configs of equal features share."""
        parts = (config.teacher.model_dump_json(), config.method.uses_corruption, config.cache.variants)
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
        return (self.folder / f"{views}-{name}.zarr").as_posix()


@pytest.fixture(scope="module")
def runs() -> dict[str, Path]:
    return {}


@pytest.fixture(scope="module")
def graphs() -> set[str]:
    return set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Removed after these tests: the runs of all configs take gigabytes."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("configs")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LIKE_OTHERS else ()) for name in NAMES]
)
def test_a_config_works_from_the_store_to_the_export(
    folder: Path, runs: dict[str, Path], graphs: set[str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for place in Home(folder, capsys, runs, graphs).trained(name):
        assert (place / "metrics.json").is_file()


@pytest.mark.parametrize("name", [*NAMES, *WELD_NAMES])
def test_the_store_of_a_config_has_the_arrays_that_its_method_reads(name: str) -> None:
    """At full size; no encoder runs, the shapes of their arrays suffice."""
    features = features_of(name)
    for config in load_configs(CONFIGS / name):
        # without memory for weights, but where a value decides while the model is made
        with torch.device("cpu" if config.method.name == "uniad" else "meta"):
            arrays_needed(config, features, tiny_index(views=len(config.data.rig or ()) or 5))


def test_configs_that_share_a_store_want_the_same_one() -> None:
    stores: dict[str, dict[str, FeatureSpec]] = {}
    for name in (*NAMES, *WELD_NAMES):
        first, *_ = load_configs(CONFIGS / name)
        stores.setdefault(str(first.cache.store), {})[name] = features_of(name)
    assert any(len(shared) > 1 for shared in stores.values())
    for shared in stores.values():
        first_features, *others = shared.values()
        for features in others:
            assert first_features.features == features.features, [*shared]


def features_of(name: str) -> FeatureSpec:
    """Of the store that `idif cache build` makes by a config."""
    reader = READERS["weld" if name in WELD_NAMES else "realiad"]
    choice = choose_store(CONFIGS / name, data={}, default_encoder=reader.encoder)
    return choice.outline().spec("float16")


def test_the_rows_of_table_3_are_the_configs_of_the_ablations() -> None:
    """So that what is trained as a row is the paper's row."""
    table = load_configs(CONFIGS / TABLE_3)
    for row, name in zip(table, ("dkd", "dkd+3dconv", "dkd+ivc", "dkd+ivc+cb"), strict=True):
        (alone,) = load_configs(CONFIGS / "ablations" / f"{name}.yaml")
        assert row.model_copy(update={"run": alone.run}) == alone
        assert METHODS["idif"].label(row.method) == name


SMALL_CAUSAL_FILM = (
    "method.width=16",
    "method.sensor={width: 16, layers: 1, state: 4}",
    "method.layers=1",
    "method.attention_heads=2",
    "method.feedforward=32",
    "train.epochs=2",
)
SMALL_SUPCON = (
    "method.width=16",
    "method.attention_heads=2",
    "method.feedforward=32",
    "method.series_encoder={width: 8, layers: 1, attention_heads: 2, feedforward: 16}",
    "train.epochs=2",
    # of four training runs, two for the threshold
    "train.holdout=0.5",
)
OWN_STORE = {"causal-film-headline.yaml"}
"""Configs that need other arrays than those of the store that the rest shares."""


@pytest.fixture(scope="module")
def weld_data(folder: Path) -> Path:
    make_tiny_weld(folder / "weld")
    return folder / "weld"


def weld_options(folder: Path, data: Path, name: str) -> list[str]:
    """Settings that make a config of weld runs small and name its places."""
    return [
        f"data.root={data.as_posix()}",
        f"cache.store={(folder / ('b9.zarr' if name in OWN_STORE else 'weld.zarr')).as_posix()}",
        "teacher.encoder=weld-tiny",
        "teacher.weights=untrained",
        f"teacher.image_size={IMAGE_SIZE}",
        f"run.dir={(folder / 'weld-runs').as_posix()}",
        "run.tracking=none",
    ]


@pytest.mark.parametrize("name", WELD_NAMES)
def test_a_config_of_weld_runs_works_from_the_store_to_the_report(
    folder: Path, weld_data: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    home, options = Home(folder, capsys, {}, set()), weld_options(folder, weld_data, name)
    methods = {config.method.name for config in load_configs(CONFIGS / name, options)}
    options += SMALL_CAUSAL_FILM if methods == {"causal-film"} else ()
    options += SMALL_SUPCON if methods == {"supcon"} else ()
    settings = [f"--config={CONFIGS / name}", *(f"--set={option}" for option in options)]
    configs = load_configs(CONFIGS / name, options)
    assert isinstance(configs[0].cache.store, Path)
    if not configs[0].cache.store.exists():
        home.command("cache", "build", "weld", *settings)
    home.command("train", *settings)
    for config in configs:
        metrics = home.command("eval", str(config.folder))
        assert 0 <= metrics["mean"]["s_auroc"] <= 1
        if methods != {"supcon"}:
            assert metrics["protocol"]["threshold"] == "greatest TPR - FPR on the split val"
            assert metrics["categories"]["weld"]["decision"]["rule"] == "validation-youden"
        assert metrics["mean"]["p_auroc"] is None
        assert metrics["mean"]["aupro"] is None
        reasons = metrics["categories"]["weld"]["reasons"]
        assert reasons["aupro"] == "the method scores whole samples and draws no maps"
        report = Path(home.command("report", str(config.folder))["report"]).read_text(encoding="utf-8")
        assert "5 stills" in report
        assert "frames of the video" in report
        assert "nomaly map" not in report
        if methods in ({"causal-film"}, {"supcon"}):
            table = folder / f"{config.run.name}.csv"
            sweep = home.command("sweep", "missing-views", str(config.folder), f"--export={table}")
            assert len(sweep["subsets"]) == 15
            assert len(table.read_text(encoding="utf-8").splitlines()) == 16


def test_a_supervised_training_reads_no_test_sample_and_says_what_it_read(
    folder: Path, weld_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / "causal-film-supcon.yaml"
    options = [*weld_options(folder, weld_data, config.name), *SMALL_SUPCON, "run.name=supervised"]
    settings = [f"--config={config}", *(f"--set={option}" for option in options)]
    store = folder / "weld.zarr"
    if not store.exists():
        assert run(["cache", "build", "weld", *settings]) == 0
    shards = [
        path for path in (store / "weld" / "test").rglob("*") if path.is_file() and path.suffix != ".json"
    ]
    content = {path: path.read_bytes() for path in shards}
    assert content
    capsys.readouterr()
    try:
        for path, data in content.items():
            path.write_bytes(bytes(len(data)))  # reading any row of it fails
        assert run(["train", *settings, "--dry-run"]) == 0
        printed = " ".join(capsys.readouterr().err.split())
        assert "note: supcon learned from labeled defects, " in printed
        assert " samples of train and val: it is a supervised reference" in printed
        assert run(["train", *settings, "--json"]) == 0
        with pytest.raises(StoreDamaged):
            list(FeatureStore.open(store, split="test").batches([0], 1))
    finally:
        for path, data in content.items():
            path.write_bytes(data)
    samples = FeatureStore.open(store, split=("train", "val")).index.samples
    (model,) = json.loads(capsys.readouterr().out)["runs"][0]["models"]
    assert {sample.split for sample in samples} == {"train", "val"}
    assert model["samples"] == len(samples) - 2, "half of four training runs are held out"
    place = str(folder / "weld-runs" / "supervised")
    assert run(["eval", place]) == 0
    assert "learned from labeled defects" in " ".join(capsys.readouterr().err.split())
    for setting in ("eval.threshold=validation", "train.eval_every=1"):
        assert run(["eval", place, f"--set={setting}", "--json"]) == 2
        assert "supcon learns from the split val" in json.loads(capsys.readouterr().out)["error"]


def test_data_without_labeled_defects_are_refused_for_a_supervised_training(
    folder: Path, weld_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, manifest = CONFIGS / "causal-film-supcon.yaml", weld_data / "manifest.csv"
    options = [*weld_options(folder, weld_data, config.name), "cache.source=live", "run.name=unlabeled"]
    lines = manifest.read_text(encoding="utf-8").splitlines()
    good = [line for line in lines if "VAL" not in line or line.startswith("good")]
    try:
        manifest.write_text("\n".join(good) + "\n", encoding="utf-8")
        assert run(["train", f"--config={config}", *(f"--set={option}" for option in options), "--json"]) == 2
    finally:
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert json.loads(capsys.readouterr().out)["error"] == (
        "method.name: supcon learns from labeled defects of the split val, of which the data of weld have "
        "none; add some, or use a method that learns from normal samples alone"
    )
    assert not (folder / "weld-runs" / "unlabeled").exists()


def test_steps_from_the_store_are_timed_beside_those_with_live_encoders(
    folder: Path, weld_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / "causal-film-demo.yaml"
    home, options = Home(folder, capsys, {}, set()), weld_options(folder, weld_data, config.name)
    settings = [f"--set={option}" for option in (*options, *SMALL_CAUSAL_FILM, "train.batch_size=2")]
    if not (folder / "weld.zarr").exists():
        home.command("cache", "build", "weld", f"--config={config}", *settings)
    capsys.readouterr()
    time_methods([str(config), *settings, "--steps=1", "--rounds=1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"dinov3_tiny_b20_b31", "vjepa2_tiny", "ast_tiny"} <= {*found["encoder"].split(", ")}
    assert found["steps_per_epoch"] == 2, "of four training runs"
    for name, seconds in found["seconds_per_step"].items():
        assert seconds > 0
        assert found["seconds_per_epoch"][name] == seconds * 2
    assert (
        found["live_over_cached"] == found["seconds_per_step"]["live"] / found["seconds_per_step"]["cached"]
    )
