"""Export: a file alone says what the run says, and a missing view's pixels have no influence on it."""

import ast
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from cli.__main__ import run
from idif.config.sections import Config, EvalConfig
from idif.data.images import load_image
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.evaluation.calibration import Calibration
from idif.evaluation.scoring import Scorer
from idif.inference import export_file
from idif.inference.export_graph import Deployment, Graph
from idif.inference.photo_grouping import PredictInput, find_parts
from idif.inference.predict import Thresholds, predict
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method, MethodContext
from idif.runs.run import open_run
from tests.helpers.exported import agree, answers, judged_by_the_run, maps_of, scores_of, stacked
from tests.idif.methods.idif.test_model import VARIANTS, inputs, make

CPU = torch.device("cpu")
EXAMPLE = Path(__file__).parents[3] / "examples" / "judge_with_onnxruntime.py"
THRESHOLD = 0.625
FITTED = {"mean": [0.1, 0.2, 0.3], "spread": [0.5, 0.25, 0.125], "samples": 3}


@pytest.mark.parametrize("name", [*VARIANTS, "product"])
def test_the_traceable_form_gives_the_maps_of_the_method(name: str) -> None:
    model = make(**VARIANTS.get(name, {"combine": "product"}))
    images, features, mask = inputs(batch=3)
    with torch.no_grad():
        # statistics of their own, so that one norm is not another
        model.train().losses(images, features, mask)
    model.eval()
    mask[0, 1] = mask[1, 4] = mask[1, 0] = False
    with torch.no_grad():
        wanted = model.anomaly_maps(model.encode(images, mask), features, mask)
        torch.testing.assert_close(
            model.export_module()(images, features, mask), wanted, atol=1e-6, rtol=1e-4
        )
        mask[1] = False
        alone = model.export_module()(images, features, mask)
    assert alone[1].abs().max() == 0
    torch.testing.assert_close(alone[[0, 2]], wanted[[0, 2]], atol=1e-6, rtol=1e-4)


class LooksEverywhere(torch.nn.Module):
    """A method that minds no mask: every map holds the mean over all views' pixels and features."""

    def forward(self, images: torch.Tensor, features: dict[str, torch.Tensor], _: Any) -> torch.Tensor:
        return images.mean(dim=2) + images.mean() + sum(f.mean() for f in features.values())


class PixelTeacher(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"layer1": images}


def test_not_even_a_careless_method_sees_what_a_missing_view_holds() -> None:
    teacher = FrozenEncoder("resnet18", "file", "0", PixelTeacher())
    method = LooksEverywhere()
    graph = Graph(teacher, method, Scorer(EvalConfig(), cast(Method, method), CPU))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 3, 8, 8), generator=generator).byte()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    other = images.clone()
    other[~mask] = 255 - other[~mask]
    for first, second in zip(graph(images, mask), graph(other, mask), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    assert graph(images, mask)[1].isnan().equal(~mask)
    other[0, 0] = 255 - other[0, 0]
    assert not torch.equal(graph(images, mask)[2], graph(other, mask)[2])


@pytest.fixture(scope="module")
def told(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, copied, with a threshold for cups and a calibration for bolts."""
    folder = tmp_path_factory.mktemp("deploy") / "run"
    shutil.copytree(world / "runs" / "tiny", folder)
    metrics = {
        "categories": {
            "cup": {"thresholds": {"sample": {"value": THRESHOLD, "rule": "fixed"}, "view": None}}
        },
        "protocol": {"calibrations": {"bolt": FITTED}},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def onnx_file(told: Path) -> Path:
    for package in export_file.ONNX_PACKAGES:
        pytest.importorskip(package, reason="the extra `export` is not installed")
    assert run(["export", str(told), "--category=cup"]) == 0
    (path,) = (told / "export").iterdir()
    return path


def photographs(world: Path, category: str = "cup") -> list[PredictInput]:
    """All parts of a category, of which some lack a view."""
    folders = [world / "data" / "realiad_256" / category]
    parts = find_parts(folders, (1, 2, 3), ("cup", "bolt"))
    assert any(None in part.images for part in parts)
    return parts


def test_the_file_alone_says_what_the_run_says(world: Path, told: Path, onnx_file: Path) -> None:
    assert onnx_file.name == "cup.onnx"
    parts, rng = photographs(world), np.random.default_rng(0)
    size = open_run(told).features().image_size
    assert size is not None

    def noise() -> Any:
        return rng.integers(0, 256, (3, size, size), dtype=np.uint8)

    images, present = stacked(parts, size, noise)
    found = answers(onnx_file, images, present)
    agree(found, judged_by_the_run(told, parts))
    # other pixels behind a missing view, and another batch, change no bit of the part
    other, _ = stacked(parts, size, noise)
    assert (other != images).any()
    again = answers(onnx_file, other, present)
    for first, second in zip(found, again, strict=True):
        np.testing.assert_array_equal(first, second)
    alone = answers(onnx_file, images[:1], present[:1])
    np.testing.assert_allclose(alone[2], found[2][:1], rtol=1e-5)
    # but a present view's pixels and presence do count
    changed = images.copy()
    changed[0, 0] = 255 - changed[0, 0]
    assert answers(onnx_file, changed, present)[2][0] != found[2][0]
    present[0] = False
    maps, of_views, of_samples = answers(onnx_file, images, present)
    assert (maps[0] == 0).all()
    assert np.isnan(of_views[0]).all()
    assert np.isnan(of_samples[0])
    np.testing.assert_array_equal(maps[1:], found[0][1:])


def test_the_file_says_what_it_is(told: Path, onnx_file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert about["views"] == [1, 2, 3]
    assert about["image_size"] == 48
    assert about["category"] == "cup"
    assert about["thresholds"] == {"sample": THRESHOLD, "view": None}
    assert about["sample_score"] == "max"
    assert about["view_score"]["rule"] == "max"
    assert set(about["versions"]) == {"idif", "torch"}
    assert any("untrained" in caveat for caveat in about["caveats"])


def test_the_example_needs_nothing_else_and_decides_as_the_run(
    world: Path, told: Path, onnx_file: Path, tmp_path: Path
) -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported - sys.stdlib_module_names == {"onnxruntime", "numpy", "PIL"}
    part = next(part for part in photographs(world) if None in part.images)
    given = ["-" if path is None else str(path) for path in part.images]
    done = subprocess.run(
        [sys.executable, EXAMPLE, onnx_file, *given], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    (wanted,) = judged_by_the_run(told, [part])
    assert wanted.score is not None
    assert found["score"] == pytest.approx(wanted.score, rel=1e-4)
    assert found["anomalous"] is (wanted.score >= THRESHOLD)
    assert list(found["views"]) == [
        str(n) for n, there in zip((1, 2, 3), wanted.present, strict=True) if there
    ]
    np.testing.assert_allclose(np.load(tmp_path / "maps.npy"), maps_of([wanted])[0], atol=1e-5)


def test_torchscript_with_calibrated_scores(
    world: Path, told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", str(told), "--format=torchscript", "--category=bolt", f"--out={tmp_path}", "--json"]
    assert run([*asked, "--set=eval.calibrate=per-view"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["difference"] <= export_file.TOLERANCE
    extra = {export_file.FACTS: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of the format
        loaded = torch.jit.load(file["path"], _extra_files=extra)
    about = json.loads(extra[export_file.FACTS])
    assert about["calibration"] == FITTED
    parts = photographs(world, "bolt")
    images, present = stacked(parts, about["image_size"], lambda: np.zeros((3, 48, 48), np.uint8))
    with torch.inference_mode():
        found = [x.numpy() for x in loaded(torch.from_numpy(images), torch.from_numpy(present))]
    calibration = Calibration(tuple(FITTED["mean"]), tuple(FITTED["spread"]), 3)  # type: ignore[arg-type]
    agree(found, judged_by_the_run(told, parts, calibration))


def test_a_file_that_says_something_else_is_not_written(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cup.pt").write_bytes(b"the one before")

    def other(deployment: Any, graph: Any, path: Path) -> Any:
        path.write_bytes(b"another")
        return lambda images, mask: graph(images, mask)[0] + 2e-3

    monkeypatch.setattr(export_file, "_write_torchscript", other)
    asked = ["export", str(told), "--format=torchscript", "--category=cup", f"--out={tmp_path}"]
    assert run(asked) == 3
    assert "differ" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"cup.pt": b"the one before"}


def test_what_cannot_be_exported_is_said_in_a_sentence(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(told), "--category=spoon"]) == 2
    assert "bolt, cup" in capsys.readouterr().err
    monkeypatch.setattr(export_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert run(["export", str(told), f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "onnxscript not installed" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.skipif("IDIF_DATA" not in os.environ, reason="IDIF_DATA does not name the folder of real data")
def test_parity_on_real_images_with_the_real_teacher(tmp_path: Path) -> None:
    home = Path(os.environ["IDIF_DATA"])
    teacher = load_encoder(home / "resnet18" / "resnet18_imagenet_conv1_to_layer3.safetensors")
    encoders, views = EncoderSet((teacher,), 128), (1, 2, 3, 4, 5)
    spec = encoders.spec("float16")
    torch.manual_seed(0)
    method = METHODS["idif"].build(Config().method, MethodContext(spec, views)).eval()
    scorer = Scorer(EvalConfig(), method, CPU)
    photos = sorted((home / "mvtec3d" / "cable_gland").rglob("rgb/*.png"))[:10]
    deployment = Deployment(
        "cable_gland",
        scorer,
        encoders,
        spec,
        views,
        ("C1", "C2", "C3", "C4", "C5"),
        Thresholds(),
        ("an untrained student",),
    )
    path = tmp_path / "real.onnx"
    export_file.write_deployment(deployment, path, "onnx")
    images = np.stack([load_image(photo, 128)[0] for photo in photos]).reshape(2, 5, 3, 128, 128)
    present = np.array([[True] * 5, [True, False, True, True, False]])
    parts = [
        PredictInput(
            str(n), "cable_gland", tuple(p if there else None for p, there in zip(ps, row, strict=True))
        )
        for n, (ps, row) in enumerate(zip((photos[:5], photos[5:]), present, strict=True))
    ]
    wanted = list(predict(scorer, encoders, parts))
    maps, _, of_samples = answers(path, images, present)
    assert np.abs(maps - maps_of(wanted)).max() <= 1e-3
    np.testing.assert_allclose(of_samples, scores_of(wanted), atol=1e-3)
