"""Writes a deployment to one ONNX or TorchScript file, which is checked before it is published."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from idif.errors import CannotFinish, ConfigError
from idif.files import make_folder, replacing, require_writable
from idif.inference.export_graph import INPUTS, OUTPUTS, Deployment

Format = Literal["onnx", "torchscript"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
FACTS = "idif.json"
"""Name of the extra file inside a TorchScript file that contains `Deployment.facts` as one JSON object."""

TOLERANCE = 1e-3
"""Largest accepted difference between a file's maps and the method's own."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages(kind: Format) -> None:
    """Raise `ConfigError` with installation instructions if a package that ``kind`` needs is missing."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise ConfigError(
            f"--format onnx: {', '.join(missing)} not installed; run `pip install {' '.join(ONNX_PACKAGES)}` "
            "(the extra `export`)"
        )


def write_deployment(deployment: Deployment, path: Path, kind: Format) -> float:
    """Write ``path`` atomically, after checking its output on random images against the method's.

    The check uses missing views and a batch size that differs from the traced one.

    Returns:
        Largest difference of any map value from the method's own.

    Raises:
        CannotFinish: the maps differ by more than `TOLERANCE`, or the disk is full.
        PathError: the folder cannot be written.
    """
    make_folder(path.parent)
    require_writable(path.parent)
    graph = deployment.graph()
    with replacing(path) as partial:
        with warnings.catch_warnings():
            # suppress the exporters' warnings about their own deprecations and intentionally fixed shapes
            warnings.simplefilter("ignore")
            load = _write_onnx if kind == "onnx" else _write_torchscript
            answer = load(deployment, graph, partial)
        images, mask = deployment.example(3, seed=1)
        with torch.inference_mode():
            difference = float((answer(images, mask) - deployment.maps(images, mask)).abs().max())
        if not difference <= TOLERANCE:
            raise CannotFinish(
                f"{path}: expected the method's maps to within {TOLERANCE}, the file gives maps that differ "
                f"by {difference:.3g}; nothing was written"
            )
    return difference


Answer = Callable[[Tensor, Tensor], Tensor]
"""(images, view_mask) -> the file's maps."""


def _write_onnx(deployment: Deployment, graph: torch.nn.Module, path: Path) -> Answer:
    import onnxruntime

    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        graph,
        deployment.example(2),
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes=({0: batch}, {0: batch}),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(deployment.facts())
    program.save(path, external_data=False)
    del program
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def answer(images: Tensor, mask: Tensor) -> Tensor:
        given = dict(zip(INPUTS, (images.numpy(), mask.numpy()), strict=True))
        return torch.from_numpy(session.run([OUTPUTS[0]], given)[0])

    return answer


def _write_torchscript(deployment: Deployment, graph: torch.nn.Module, path: Path) -> Answer:
    with torch.inference_mode():
        traced = torch.jit.trace(graph, deployment.example(2), check_trace=False)  # type: ignore[no-untyped-call]
    entries = ", ".join(f'"{name}": {text}' for name, text in deployment.facts().items())
    with path.open("wb") as file:  # the library's own writing to a path states no reason where it fails
        torch.jit.save(traced, file, _extra_files={FACTS: f"{{{entries}}}"})
    loaded = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]

    def answer(images: Tensor, mask: Tensor) -> Tensor:
        maps: Tensor = loaded(images, mask)[0]
        return maps

    return answer
