"""Configs: unknown keys are named, overrides and matrix resolve, shipped files are valid."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from idif.config.loader import RENAMED, load_configs, resolve
from idif.config.sections import Config, InpainterConfig
from idif.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[3] / "configs").rglob("*.yaml"))


def load(tmp_path: Path, text: str, *overrides: str) -> list[Config]:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load_configs(path, overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epohcs: 3}", "unknown key 'train.epohcs'; did you mean 'epochs'?"),
        ("trian: {}", "unknown key 'trian'; did you mean 'train'?"),
        ("train: {dropout: {p: 0.2}}", "unknown key 'train.dropout.p'"),
        ("train: {epochs: 0}", "train.epochs: Input should be greater than or equal to 1, got 0"),
        ("train: {lr: .nan}", "train.lr"),
        (
            "method: {name: supcon}\ntrain: {dropout: {probability: 0.2}}",
            "train.dropout: the method supcon drops no views",
        ),
        ("train: 3", "train: expected a mapping with keys accumulate, batch_size"),
        ("method: {head: cosin}", "method.head: Input should be 'cosine' or 'segmentation', got 'cosin'"),
        ("method: {attention_heads: 7}", "heads: 7 does not divide voxel.channels: 256"),
        ("eval: {calibrate: per-view}", "train with train.holdout"),
        ("cache: {source: store}", "cache.store names none"),
        ("data: {categories: usb}", "data.categories: Input should be a list, got 'usb'"),
        ("run: {name: ../out}", "run.name"),
        ("- 1", "expected sections"),
        ("a: [", "not valid YAML"),
        ("train: {epochs: 3}\ndata: {}\ntrain: {seed: 1}", "'train' is given twice, in lines 1 and 3"),
        ("train:\n  lr: 0.1\n  lr: 0.2", "'lr' is given twice, in lines 2 and 3"),
        ("matrix: [{name: a, name: b}]", "'name' is given twice, in lines 1 and 1"),
        ("train: {epochs: '20'}", "train.epochs: expected a value without quotes, got '20'"),
        ("train: {lr: '2e4'}", "train.lr: expected a value without quotes"),
        ("train: {ema: true}", "train.ema: expected a number, not true or false, got True"),
        ("data: {drop_incomplete: 1}", "data.drop_incomplete: expected true or false, got 1"),
        ("data: {drop_incomplete: 'yes'}", "data.drop_incomplete: expected a value without quotes"),
        ("eval: {fpr_limits: ['0.3']}", "eval.fpr_limits: expected a value without quotes"),
        ("method: {name: idif, bottleneck: 'no'}", "method.bottleneck: expected a value without quotes"),
        ("matrix: 3", "matrix: expected a list"),
        ("matrix: [{train: {lr: 0.1}}]", "every entry needs a `name`"),
        ("matrix: [{name: a}, {name: a}]", "two entries have the same name"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert expected in str(caught.value)
    assert "c.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_configs(tmp_path / "nowhere.yaml")


def test_overrides_come_last_and_take_yaml_values(tmp_path: Path) -> None:
    (config,) = load(
        tmp_path,
        "train: {lr: 1e-3, epochs: 5}",
        "train.epochs=7",
        "data.categories=[a, b]",
        "train.dropout.probability=0.2",
        "cache.store=/x y/z.zarr",
    )
    assert (config.train.lr, config.train.epochs, config.train.dropout.probability) == (1e-3, 7, 0.2)
    assert config.data.categories == ("a", "b")
    assert config.cache.store == Path("/x y/z.zarr")
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        load(tmp_path, "", "train.epochs")


@pytest.mark.parametrize(
    ("old", "new", "given", "wanted"),
    [
        ("train.ranks", "train.distribute", "samples", "batch"),
        ("train.ranks", "train.distribute", "categories", "categories"),
        ("train.head_epochs", "method.head_epochs", "7", 7),
        ("method.heads", "method.attention_heads", "4", 4),
        ("eval.normals", "eval.record_normal_scores", "true", True),
        ("eval.pooled", "eval.pool_categories", "true", True),
        ("strategies.painter", "strategies.inpainter", "{epochs: 3}", InpainterConfig(epochs=3)),
        ("strategies.score_filled", "strategies.score_imputed", "true", True),
    ],
)
def test_keys_of_version_0_1_are_read_under_their_new_names(
    tmp_path: Path, old: str, new: str, given: str, wanted: object
) -> None:
    assert old in RENAMED
    for text, overrides in (("run: {name: t}", [f"{old}={given}"]), (nested(old, given), [])):
        (config,) = load(tmp_path, text, *overrides)
        section, key = new.split(".")
        assert getattr(getattr(config, section), key) == wanted
        old_section, old_key = old.split(".")
        assert old_key not in yaml.safe_load(config.to_yaml())[old_section]
    both = f"c.yaml: {old} is the former name of {new}; give one of them"
    with pytest.raises(ConfigError, match=re.escape(both)):
        load(tmp_path, yaml.safe_dump(together(old, new, yaml.safe_load(given))))
    (config,) = load(
        tmp_path, "run: {name: t}", f"{new}={given}".replace("samples", "batch"), f"{old}={given}"
    )
    assert getattr(getattr(config, section), key) == wanted, "an override comes last under either name"


def together(old: str, new: str, value: object) -> dict[str, dict[str, object]]:
    """A config that gives both names."""
    sections: dict[str, dict[str, object]] = {}
    for key in (old, new):
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return sections


def nested(key: str, value: str) -> str:
    section, name = key.split(".")
    return f"{section}: {{{name}: {value}}}"


def test_a_matrix_makes_one_run_an_entry(tmp_path: Path) -> None:
    text = (
        "run: {name: t}\ntrain: {epochs: 2}\nmatrix:\n- {name: dkd, method: {fusion: none}}\n- {name: full}"
    )
    first, second = load(tmp_path, text)
    assert (first.run.name, second.run.name) == ("t-dkd", "t-full")
    sections = [first.method.model_dump(), second.method.model_dump()]
    assert [section["fusion"] for section in sections] == ["none", "ivc"]
    assert first.train.epochs == second.train.epochs == 2


def test_the_resolved_config_reads_back_as_itself(tmp_path: Path) -> None:
    (config,) = load(tmp_path, "data: {rig: {2: [90, 30, 0]}}\ncorruption: {textures: procedural}")
    (again,) = load(tmp_path, config.to_yaml())
    assert again == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    for config in load_configs(path):
        chosen = config.corruption.textures is not None or not config.method.uses_corruption
        assert chosen, "textures are never chosen silently"


def test_the_demo_config_is_valid() -> None:
    raw = yaml.safe_load((files("cli") / "demo.yaml").read_text(encoding="utf-8"))
    assert resolve(raw["config"], source="demo.yaml")[0].corruption.textures == "procedural"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    text = (
        "data: {root: ~/data}\ncache: {store: ~/s.zarr}\nrun: {dir: ~/runs}\ntrain: {init: ~/runs/a}\n"
        "corruption: {textures: ~/dtd}"
    )
    (config,) = load(tmp_path, text)
    assert config.data.root == tmp_path / "data"
    assert config.cache.store == tmp_path / "s.zarr"
    assert config.run.dir == tmp_path / "runs"
    assert config.train.init == tmp_path / "runs" / "a"
    assert Path(config.corruption.textures or "") == tmp_path / "dtd"
    (written,) = resolve({}, ["run.dir=~/elsewhere"], source="c.yaml")
    assert written.run.dir == tmp_path / "elsewhere"
