"""What usually goes wrong on a machine, checked and explained; each check returns one `Finding`."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from torchvision.models import ResNet18_Weights

from idif import __version__
from idif.config.sections import TrainConfig
from idif.corruption.textures import DTD_URL, texture_files
from idif.encoders.frozen import load_encoder
from idif.errors import IdifError
from idif.training.precision import numerics, winograd_applies, winograd_unavailable_reason

Status = Literal["ok", "warning", "problem"]

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 4e9, 1e9
LITTLE_SPACE, TOO_LITTLE_SPACE = 10e9, 0.5e9
SLOW_DISK = 50e6
"""Bytes, and bytes per second, below which a warning or a problem is due."""

PROBE_BYTES = 32 * 2**20
"""What is written to time a disk."""

RENDERING = "from idif.datasets.synthetic.ray_tracer import Raster\nwith Raster(1, 16): pass"
COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    name: str
    status: Status
    """``problem``: a run would stop on it. ``warning``: something is slow or cannot be used."""
    found: str
    advice: str | None = None
    """What to do; None where there is nothing to do."""


def check_python() -> Finding:
    """Python and idif itself."""
    found = f"Python {platform.python_version()}, idif {__version__}, {platform.platform(terse=True)}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "problem", found, "idif needs Python 3.11 or newer")
    return Finding("python", "ok", found)


def check_libraries() -> Finding:
    """Whether every library that idif needs is there, in a version that it takes."""
    try:
        needed = [Requirement(text) for text in requires("idif") or ()]
    except PackageNotFoundError:
        return Finding("libraries", "warning", "idif is not installed, only on the path", "pip install -e .")
    wrong, core = [], [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in core:
        have = _version(requirement.name)
        if have is None or not requirement.specifier.contains(have, prereleases=True):
            wrong.append(f"{requirement} (found {have or 'none'})")
    if wrong:
        return Finding("libraries", "problem", ", ".join(wrong), "install them: pip install --upgrade idif")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision", "zarr", "tensorstore"))
    return Finding("libraries", "ok", f"all {len(core)}; {shown}")


def check_extras() -> Finding:
    """Which optional parts are installed. None is needed to train."""
    try:
        needed = [Requirement(text) for text in requires("idif") or ()]
    except PackageNotFoundError:
        needed = []
    extras: dict[str, list[str]] = {}
    for requirement in needed:
        for extra in ("app", "cpu", "export", "s3", "tracking", "wandb", "test"):
            marker = requirement.marker
            if (
                marker is not None
                and not marker.evaluate({"extra": ""})
                and marker.evaluate({"extra": extra})
            ):
                missing = extras.setdefault(extra, [])
                if _version(requirement.name) is None:
                    missing.append(requirement.name)
    words = [f"{extra}: {'lacks ' + ', '.join(m) if m else 'installed'}" for extra, m in extras.items()]
    lacking = [name for missing in extras.values() for name in missing]
    advice = f"where you want them: pip install {' '.join(lacking)}" if lacking else None
    return Finding("extras", "ok", "; ".join(words) or "unknown", advice)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_device(device: torch.device) -> Finding:
    """Where computing happens, and in which precision training does."""
    how = numerics(TrainConfig(), device)
    precision = how["precision"]
    if device.type == "cpu":
        found = f"CPU, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, {precision}"
        found += f", {how['convolutions']} convolutions"
        advice = "no accelerator: use small images and few categories (configs/laptop-8gb.yaml)"
        if winograd_applies(TrainConfig(), device) and (lacks := winograd_unavailable_reason()) is not None:
            advice += f"; training could be faster: {lacks}"
        return Finding("device", "warning", found, advice)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Finding("device", "ok", f"{torch.accelerator.device_count()} x {name}, {precision}")


def check_memory(free: int | None) -> Finding:
    """Main memory that is free, in bytes; None where the system does not tell."""
    if free is None:
        return Finding("memory", "ok", "this system does not tell how much is free")
    found = f"{free / 1e9:.1f} GB free"
    if free < TOO_LITTLE_MEMORY:
        return Finding("memory", "problem", found, "training needs at least 1 GB: close other programs")
    if free < LITTLE_MEMORY:
        return Finding("memory", "warning", found, "use cache.placement: disk and small batches")
    return Finding("memory", "ok", found)


def check_folder(folder: Path) -> Finding:
    """Whether stores and runs can be written below ``folder``, how much fits, and how fast."""
    probed = folder
    while not probed.exists() and probed != probed.parent:
        probed = probed.parent
    block = os.urandom(2**20)
    try:
        with tempfile.TemporaryFile(dir=probed) as file:
            began = time.perf_counter()
            for _ in range(PROBE_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            rate = PROBE_BYTES / (time.perf_counter() - began)
        space = shutil.disk_usage(probed).free
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Finding("disk", "problem", f"{probed}: cannot be written ({why})", "choose another with --dir")
    found = f"{probed.resolve()}: {space / 1e9:,.1f} GB free, {rate / 1e6:,.0f} MB/s written"
    if space < TOO_LITTLE_SPACE:
        return Finding("disk", "problem", found, "no store fits here: make room or choose another with --dir")
    if space < LITTLE_SPACE:
        return Finding(
            "disk", "warning", found, "Real-IAD takes 33 GB for training at 256 px; see `idif cache plan`"
        )
    if rate < SLOW_DISK:
        return Finding(
            "disk", "warning", found, "slow: let features wait in memory (cache.placement: memory)"
        )
    return Finding("disk", "ok", found)


def check_weights(given: str | None) -> Finding:
    """The teacher's weights: the file named, or ImageNet's in torchvision's cache. Nothing is downloaded."""
    if given is not None and given != "imagenet":
        try:
            encoder = load_encoder(given)
        except IdifError as error:
            return Finding("weights", "problem", str(error), "give a file with torchvision's key names")
        return Finding("weights", "ok", f"{given}: SHA-256 {encoder.sha256[:12]}")
    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return Finding("weights", "ok", f"ImageNet's, {path}")
    return Finding(
        "weights",
        "warning",
        f"ImageNet's are not in {path.parent}",
        f"they are downloaded when first needed; without a network put {url} there, or give a file with "
        "--teacher-weights",
    )


def check_textures(given: str | None) -> Finding:
    """The folder of textures that defects are painted with; every file's name is read, none decoded."""
    if given == "procedural":
        return Finding("textures", "ok", "generated ones, as asked for")
    if given is None:
        return Finding(
            "textures",
            "warning",
            "no folder given, so none was looked at",
            f"training needs corruption.textures: the folder of DTD ({DTD_URL}) or procedural; name it with "
            "--textures to check it",
        )
    try:
        count = len(texture_files(Path(given)))
    except IdifError as error:
        return Finding("textures", "problem", str(error), "unpack DTD, or use procedural")
    return Finding("textures", "ok", f"{given}: {count:,} images")


def check_compiler() -> Finding:
    """The C++ compiler that torch.compile needs on a CPU."""
    named = os.environ.get("CXX")
    found = next((path for name in (named, *COMPILERS) if name and (path := shutil.which(name))), None)
    if found is None:
        return Finding(
            "compiler", "warning", "no C++ compiler", "only torch.compile needs one, e.g. apt-get install g++"
        )
    return Finding("compiler", "ok", found)


def start_rendering() -> Callable[[], Finding]:
    """Start to render off-screen, in a process that a driver may end; the result waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-c", RENDERING], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )

    def wait() -> Finding:
        advice = "only `idif data synth` and `idif demo` render; see the README for the packages"
        try:
            _, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Finding("rendering", "warning", "off-screen rendering hangs", advice)
        if process.returncode:
            last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            return Finding("rendering", "warning", last, advice)
        return Finding("rendering", "ok", "off-screen rendering works")

    return wait
