"""Checkpoints of UniAD's authors: names, values, and the run that `idif import-weights` makes of one."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cli.__main__ import run
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.encoders.efficientnet_names import timm_names
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.encoders.live import LiveFeatures
from idif.encoders.options import EncoderOptions
from idif.runs.import_weights import IMPORT_STEPS
from idif.runs.run import open_run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

OPTIONS = EncoderOptions(neck="aligned")
SIZE, SIDE, CHANNELS, WIDTH, HEADS, HIDDEN = 96, 6, 448, 16, 2, 24
LAYERS = (2, 3)
Weights = dict[str, Tensor]


def authors_weights() -> Weights:
    """Random weights under the authors' names."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed.row_embed.weight": (SIDE, WIDTH // 2),
        "pos_embed.col_embed.weight": (SIDE, WIDTH // 2),
        "input_proj.weight": (WIDTH, CHANNELS),
        "input_proj.bias": (WIDTH,),
        "output_proj.weight": (CHANNELS, WIDTH),
        "output_proj.bias": (CHANNELS,),
        "transformer.decoder.norm.weight": (WIDTH,),
        "transformer.decoder.norm.bias": (WIDTH,),
    }
    for part, count, norms in (("encoder", LAYERS[0], 2), ("decoder", LAYERS[1], 3)):
        for number in range(count):
            here = f"transformer.{part}.layers.{number}"
            attentions = ["self_attn"] if part == "encoder" else ["self_attn", "multihead_attn"]
            for attention in attentions:
                shapes[f"{here}.{attention}.in_proj_weight"] = (3 * WIDTH, WIDTH)
                shapes[f"{here}.{attention}.in_proj_bias"] = (3 * WIDTH,)
                shapes[f"{here}.{attention}.out_proj.weight"] = (WIDTH, WIDTH)
                shapes[f"{here}.{attention}.out_proj.bias"] = (WIDTH,)
            shapes[f"{here}.linear1.weight"], shapes[f"{here}.linear1.bias"] = (HIDDEN, WIDTH), (HIDDEN,)
            shapes[f"{here}.linear2.weight"], shapes[f"{here}.linear2.bias"] = (WIDTH, HIDDEN), (WIDTH,)
            for norm in range(1, norms + 1):
                shapes[f"{here}.norm{norm}.weight"] = shapes[f"{here}.norm{norm}.bias"] = (WIDTH,)
            if part == "decoder":
                shapes[f"{here}.learned_embed.weight"] = (SIDE * SIDE, WIDTH)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def reconstruct(weights: Weights, features: Tensor) -> Tensor:
    """The reconstruction [C,h,w] of one view [C,h,w], from the definition and the authors' names."""
    near = torch.tensor(
        [
            [abs(q // SIDE - k // SIDE) <= 1 and abs(q % SIDE - k % SIDE) <= 1 for k in range(SIDE**2)]
            for q in range(SIDE**2)
        ]
    )
    columns, rows = weights["pos_embed.col_embed.weight"], weights["pos_embed.row_embed.weight"]
    position = torch.stack([torch.cat([columns[n % SIDE], rows[n // SIDE]]) for n in range(SIDE**2)])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attend(name: str, queries: Tensor, source: Tensor) -> Tensor:
        w, b = weights[f"{name}.in_proj_weight"].chunk(3), weights[f"{name}.in_proj_bias"].chunk(3)
        q, k = F.linear(queries + position, w[0], b[0]), F.linear(source + position, w[1], b[1])
        v, depth = F.linear(source, w[2], b[2]), WIDTH // HEADS
        parts = []
        for head in range(HEADS):
            own = slice(head * depth, (head + 1) * depth)
            logits = q[:, own] @ k[:, own].T / math.sqrt(depth)
            parts.append(logits.masked_fill(near, -math.inf).softmax(dim=1) @ v[:, own])
        return linear(f"{name}.out_proj", torch.cat(parts, dim=1))

    def feed(here: str, x: Tensor) -> Tensor:
        return linear(f"{here}.linear2", F.relu(linear(f"{here}.linear1", x)))

    x = linear("input_proj", features.flatten(1).T)
    for number in range(LAYERS[0]):
        here = f"transformer.encoder.layers.{number}"
        x = norm(f"{here}.norm1", x + attend(f"{here}.self_attn", x, x))
        x = norm(f"{here}.norm2", x + feed(here, x))
    memory = x
    for number in range(LAYERS[1]):
        here, query = f"transformer.decoder.layers.{number}", None
        query = weights[f"{here}.learned_embed.weight"]
        query = norm(f"{here}.norm1", query + attend(f"{here}.self_attn", query, memory))
        query = norm(f"{here}.norm2", query + attend(f"{here}.multihead_attn", query, x))
        x = norm(f"{here}.norm3", query + feed(here, query))
    rebuilt = linear("output_proj", norm("transformer.decoder.norm", x))
    return torch.unflatten(rebuilt.T, 1, (SIDE, SIDE))


class EasyDict(dict[str, Any]):
    """Settings as the authors' checkpoints hold them beside the weights: items that are attributes too."""

    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        vars(self).update(items)


EasyDict.__module__ = "easydict"


def write_checkpoint(path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as the authors' trainer writes it, settings and a figure of NumPy included."""
    import sys
    import types

    import numpy as np

    module = types.ModuleType("easydict")
    vars(module)["EasyDict"] = EasyDict
    monkeypatch.setitem(sys.modules, "easydict", module)
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    settings = [EasyDict(name="reconstruction", kwargs=EasyDict(hidden_dim=WIDTH))]
    content = {"epoch": 3, "arch": settings, "state_dict": state, "best_metric": np.float64(0.9)}
    torch.save(content, path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a config ``c.yaml`` of a live encoder and a model of the weights' sizes."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("import")
    index = tiny_index(categories=("cup", "bolt"), train=2, test=2)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    (home / "c.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}'}}\n"
        "cache: {source: live}\n"
        f"teacher: {{encoder: resnet18, weights: untrained, image_size: {SIZE}, taps: [4, 8, 16]}}\n"
        f"method: {{name: uniad, width: {WIDTH}, attention_heads: {HEADS}, feedforward: {HIDDEN}, "
        f"encoder_layers: {LAYERS[0]}, decoder_layers: {LAYERS[1]}, neighbor_mask: {{size: [3, 3]}}}}\n"
        f"run: {{name: imported, dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    return home


def one_batch(home: Path) -> tuple[FeatureSource, Batch]:
    index = tiny_index(categories=("cup", "bolt"), train=2, test=2)
    encoders = EncoderSet((load_encoder("untrained", "resnet18", OPTIONS),), SIZE)
    source = LiveFeatures(home / "data", index, encoders, torch.device("cpu"))
    (batch,) = source.batches([0, 1], 2)
    return source, batch


def whole_checkpoint() -> Weights:
    encoder = load_encoder("untrained", "resnet18", OPTIONS).module.state_dict()
    rebuilding = {f"reconstruction.{name}": x for name, x in authors_weights().items()}
    return rebuilding | {f"backbone.{name}": x for name, x in encoder.items()}


def test_an_authors_checkpoint_becomes_a_run_with_the_authors_maps(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(home / "ckpt.pth.tar", whole_checkpoint(), monkeypatch)
    config = f"--config={home / 'c.yaml'}"
    command = ["import-weights", "uniad", str(home / "ckpt.pth.tar"), config]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("idif.runs.import_weights.save_checkpoint", interrupt)
        assert run(command) == 130
    assert not list((home / "runs").glob("*imported*")), "a run without weights would be trained by --resume"
    steps: list[int] = []
    bar = nullcontext(lambda done, total, what="": steps.append(done))
    monkeypatch.setattr("cli.commands.import_weights.progress_bar", lambda title, unit: bar)
    assert run(command) == 0
    assert steps == [0, 0, 1, 2, IMPORT_STEPS]
    imported = open_run(home / "runs" / "imported")
    source, batch = one_batch(home)
    method = imported.method("all", source.spec, source.index.view_numbers)
    maps = method.score(batch).maps["map"]
    weights = authors_weights()
    for sample in range(2):
        for view in range(3):
            if not batch.view_mask[sample, view]:
                assert not maps[sample, view].any()
                continue
            features = batch.arrays["aligned"][sample, view]
            distance = (reconstruct(weights, features) - features).square().sum(dim=0).sqrt()
            wanted = F.interpolate(distance[None, None], SIZE, mode="bilinear", align_corners=True)[0, 0]
            torch.testing.assert_close(maps[sample, view], wanted, rtol=1e-4, atol=1e-4)
    assert run(["eval", str(home / "runs" / "imported"), "--save-reconstruction"]) == 0
    with h5py.File(home / "runs" / "imported" / "reconstruction.h5") as file:
        assert sorted(file) == ["aligned", "category", "present", "sample_id"]
        row = file["sample_id"].asstr()[:].tolist().index(source.index.samples[2].sample_id)
        (batch,) = source.batches([2], 1)
        rebuilt = torch.from_numpy(file["aligned"][row, 0]).float()
        wanted = reconstruct(weights, batch.arrays["aligned"][0, 0])
        torch.testing.assert_close(rebuilt, wanted, rtol=2e-3, atol=2e-3)
        assert not file["aligned"][:][~file["present"][:]].any()
    assert "ckpt.pth.tar" in (home / "runs" / "imported" / "environment.json").read_text(encoding="utf-8")
    assert run(["train", config, "--resume"]) == 0
    assert run(["import-weights", "uniad", str(home / "ckpt.pth.tar"), config]) == 2


def refused(home: Path, weights: Weights, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The message with which the import of a checkpoint is refused; no run is left."""
    torch.save({"state_dict": weights}, home / "bad.pth.tar")
    command = ["import-weights", "uniad", str(home / "bad.pth.tar"), f"--config={home / 'c.yaml'}", *more]
    assert run([*command, "--set=run.name=bad"]) == 2
    assert not (home / "runs" / "bad").exists()
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return " ".join(message.split())


def test_what_does_not_fit_is_refused_in_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = whole_checkpoint()
    other = whole | {"backbone.conv1.weight": whole["backbone.conv1.weight"] + 1}
    assert "its backbone is not the encoder resnet18" in refused(home, other, capsys)
    assert "'decoder.2.queries'" in refused(
        home, {k: v for k, v in whole.items() if "layers.2.learned" not in k}, capsys
    )
    assert "no place for 'transformer.encoder.norm.weight'" in refused(
        home, whole | {"reconstruction.transformer.encoder.norm.weight": torch.ones(WIDTH)}, capsys
    )
    assert "'position.rows' has shape" in refused(
        home, whole | {"reconstruction.pos_embed.row_embed.weight": torch.ones(14, 8)}, capsys
    )
    assert "expected a checkpoint of UniAD" in refused(home, {"fc.weight": torch.ones(1)}, capsys)
    assert "the config names 2" in refused(home, whole, capsys, "--set=train.mode=per-category")
    assert "method.pool: expected at most the image size" in refused(
        home, whole, capsys, "--set=method.pool=1000"
    )


def test_a_dry_run_counts_the_parameters_of_each_part(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", f"--config={home / 'c.yaml'}", "--set=run.name=dry", "--dry-run"]
    assert run([*command, "--json"]) == 0
    ((model,),) = [result["models"] for result in json.loads(capsys.readouterr().out)["runs"]]
    parts = model["estimate"]["parts"]
    total = sum(values.numel() for values in authors_weights().values())
    assert sum(parts.values()) == model["estimate"]["parameters"] == total
    assert parts["project_in"] == WIDTH * (CHANNELS + 1)
    assert run(command) == 0
    assert f"all: {total:,} trainable of {total:,} parameters: project_in" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.neck=none", "reads aligned, but there are layer1"),
        ("method.neighbor_mask.size=[11,11]", "covers the whole grid of 6x6 tokens"),
        ("method.neighbor_mask.size=[4,4]", "expected an odd number, got 4"),
        ("method.pool=97", "expected at most the image size 96"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_leaves_no_folder(
    home: Path, capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    command = ["train", f"--config={home / 'c.yaml'}", "--set=run.name=none", f"--set={override}"]
    assert run(command) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert words in message
    assert "Traceback" not in message
    assert not (home / "runs" / "none").exists()


def test_a_method_without_importer_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "other.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}'}}\n"
        "teacher: {weights: untrained, image_size: 32}\n"
        "train: {mode: unified}\n",
        encoding="utf-8",
    )
    torch.save({}, home / "empty.pth")
    command = ["import-weights", "idif", str(home / "empty.pth"), f"--config={home / 'other.yaml'}"]
    assert run(command) == 2
    assert "idif imports no weights; methods that do: " in " ".join(capsys.readouterr().err.split())
    command[1] = "uniad"
    assert run(command) == 2
    assert "method.name: expected uniad, got idif" in " ".join(capsys.readouterr().err.split())


def test_the_reconstruction_alone_is_enough_and_the_encoder_can_be_taken_out(home: Path) -> None:
    torch.save(authors_weights(), home / "alone.pth")
    command = ["import-weights", "uniad", str(home / "alone.pth"), f"--config={home / 'c.yaml'}"]
    assert run([*command, "--set=run.name=alone"]) == 0
    torch.save(whole_checkpoint(), home / "whole.pth")
    command[2] = str(home / "whole.pth")
    no_store = ["--set=cache.source=store", "--set=cache.store=nowhere.zarr"]
    assert run([*command, f"--encoder-out={home / 'encoder.safetensors'}", *no_store]) == 0
    assert (
        load_encoder(home / "encoder.safetensors", "resnet18", OPTIONS).sha256
        == load_encoder("untrained", "resnet18", OPTIONS).sha256
    )


def test_names_of_the_port_of_efficientnet() -> None:
    """A small network in timm's numbering: one block that does not widen, then two that do."""
    wanted = [
        "conv_stem.weight",
        "bn1.weight",
        *(f"blocks.0.0.{part}.weight" for part in ("conv_dw", "bn1", "se.conv_reduce", "conv_pw", "bn2")),
        *(
            f"blocks.1.{place}.{part}.weight"
            for place in range(2)
            for part in ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_expand", "conv_pwl", "bn3")
        ),
    ]
    plain = ("_depthwise_conv", "_bn1", "_se_reduce", "_project_conv", "_bn2")
    wide = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_expand", "_project_conv", "_bn2")
    port = [
        "_conv_stem.weight",
        "_bn0.weight",
        *(f"_blocks.0.{part}.weight" for part in plain),
        *(f"_blocks.{number}.{part}.weight" for number in (1, 2) for part in wide),
    ]
    given = {name: torch.tensor(number) for number, name in enumerate(port)}
    surplus = {"_conv_head.weight": torch.tensor(-1), "_blocks.3._bn1.weight": torch.tensor(-1)}
    found = timm_names(given | surplus, wanted)
    assert {name: int(number) for name, number in found.items()} == {n: i for i, n in enumerate(wanted)}
