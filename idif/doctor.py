"""Checks of the machine that a run depends on; each check returns one `CheckResult`."""

import os
import platform
import shutil
import statistics
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

from idif.config.sections import TrainConfig
from idif.corruption.textures import DTD_URL, texture_files
from idif.encoders.frozen import load_encoder
from idif.encoders.resnet import ARCHITECTURES
from idif.errors import IdifError
from idif.package_names import INSTALLED_IN, hidden_package, hiding_files
from idif.training.precision import numerics, winograd_applies, winograd_unavailable_reason
from idif.version import __version__

Status = Literal["ok", "warning", "problem"]

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 4e9, 1e9
LITTLE_SPACE, TOO_LITTLE_SPACE = 10e9, 0.5e9
SLOW_DISK = 50e6
"""Limits in bytes, and in bytes per second, below which a check warns or fails."""

PROBE_BYTES = 32 * 2**20
"""Bytes written to measure the speed of a disk."""

WORTH_FEWER_THREADS = 1.2
"""Gain in speed from which fewer threads are advised."""
THREAD_ROUNDS = 40

RENDERING = "from idif.datasets.synthetic.ray_tracer import DepthRenderer\nwith DepthRenderer(1, 16): pass"
COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    name: str
    status: Status
    """``problem``: a run would fail. ``warning``: something is slow or unavailable."""
    found: str
    """Result of the check, as text."""
    advice: str | None = None
    """Recommended action; None if nothing is needed."""


def check_python() -> CheckResult:
    """The versions of Python and idif."""
    found = f"Python {platform.python_version()}, idif {__version__}, {platform.platform(terse=True)}"
    if sys.version_info < OLDEST_PYTHON:
        return CheckResult("python", "problem", found, "idif needs Python 3.11 or newer")
    return CheckResult("python", "ok", found)


def check_libraries() -> CheckResult:
    """Whether every required library is installed in a supported version."""
    try:
        needed = [Requirement(text) for text in requires("idif") or ()]
    except PackageNotFoundError:
        return CheckResult("libraries", "warning", "idif is importable but not installed", "pip install -e .")
    unmet, core = [], [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in core:
        installed = _version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            unmet.append(f"{requirement} (found {installed or 'none'})")
    if unmet:
        return CheckResult(
            "libraries", "problem", ", ".join(unmet), "install them: pip install --upgrade idif"
        )
    known = {name: _version(name) for name in ("torch", "torchvision", "zarr", "tensorstore")}
    shown = ", ".join(f"{name} {found}" for name, found in known.items() if found is not None)
    return CheckResult("libraries", "ok", f"all {len(core)}; {shown}")


def check_names(folder: Path) -> CheckResult:
    """Whether modules of the user hide the packages `cache` and `cli`.

    Args:
        folder: the working folder, which `python -m`, notebooks and scripts in it search first.
    """
    if (problem := hidden_package()) is not None:
        return CheckResult("names", "problem", problem)
    if hiding := hiding_files(folder):
        return CheckResult(
            "names",
            "warning",
            f"{', '.join(map(str, hiding))}: hides a package of idif from scripts in this folder",
            "rename it; `idif` and `python -m idif` are not affected",
        )
    return CheckResult("names", "ok", f"idif, cache and cli are those in {INSTALLED_IN}")


def check_extras() -> CheckResult:
    """Which extras are installed; training needs none of them."""
    try:
        needed = [Requirement(text) for text in requires("idif") or ()]
    except PackageNotFoundError:
        needed = []
    extras: dict[str, list[str]] = {}
    for requirement in needed:
        for extra in ("app", "cpu", "export", "s3", "tracking", "wandb", "weld", "test"):
            marker = requirement.marker
            if (
                marker is not None
                and not marker.evaluate({"extra": ""})
                and marker.evaluate({"extra": extra})
            ):
                missing = extras.setdefault(extra, [])
                if _version(requirement.name) is None:
                    missing.append(requirement.name)
    states = [f"{extra}: {'lacks ' + ', '.join(m) if m else 'installed'}" for extra, m in extras.items()]
    lacking = [name for missing in extras.values() for name in missing]
    advice = f"if you need them: pip install {' '.join(lacking)}" if lacking else None
    return CheckResult("extras", "ok", "; ".join(states) or "unknown", advice)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_device(device: torch.device) -> CheckResult:
    """The device, and the precision that training uses on it."""
    how = numerics(TrainConfig(), device)
    precision = how["precision"]
    if device.type == "cpu":
        found = f"CPU, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, {precision}"
        found += f", {how['convolutions']} convolutions"
        advice = "no accelerator: use small images and few categories (configs/laptop-8gb.yaml)"
        if winograd_applies(TrainConfig(), device) and (lacks := winograd_unavailable_reason()) is not None:
            advice += f"; training could be faster: {lacks}"
        return CheckResult("device", "warning", found, advice)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return CheckResult("device", "ok", f"{torch.accelerator.device_count()} x {name}, {precision}")


def check_threads(device: torch.device, limit: float = 1.5) -> CheckResult:
    """Whether fewer threads compute faster under the present load of the machine.

    Threads of OpenMP wait for each other after each operation: one that has to share its core holds up all.

    Args:
        device: of training; only a CPU's is measured.
        limit: seconds after which measuring ends.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return CheckResult("threads", "ok", f"{threads} for computing on the CPU")
    try:
        return thread_advice(_seconds_by_threads(threads, limit))
    finally:
        torch.set_num_threads(threads)


def thread_advice(seconds: dict[int, float]) -> CheckResult:
    """The result of `check_threads`.

    Args:
        seconds: number of threads -> duration of the same work; the largest number is the present one.
    """
    threads = max(seconds)
    fastest = min(seconds, key=lambda count: seconds[count])
    gain = seconds[threads] / seconds[fastest]
    if gain < WORTH_FEWER_THREADS:
        return CheckResult("threads", "ok", f"{threads}; no fewer are faster under the present load")
    return CheckResult(
        "threads",
        "warning",
        f"{threads}, which wait for each other under the present load: with {fastest} the same work is "
        f"{gain:.1f} times as fast",
        f"while other work runs beside it, set OMP_NUM_THREADS={fastest}",
    )


def _seconds_by_threads(threads: int, limit: float) -> dict[int, float]:
    """Median duration of a small convolution with its gradient, by number of threads, measured in turn."""
    counts = sorted({threads, max(1, threads // 2), 1}, reverse=True)
    images = torch.randn(4, 32, 48, 48, requires_grad=True)
    weight = torch.randn(32, 32, 3, 3, requires_grad=True)
    found: dict[int, list[float]] = {count: [] for count in counts}
    began = time.perf_counter()
    while len(found[counts[-1]]) < THREAD_ROUNDS:
        for count in counts:
            torch.set_num_threads(count)
            start = time.perf_counter()
            loss = torch.conv2d(images, weight, padding=1).relu().sum()
            torch.autograd.grad(loss, [images, weight])
            found[count].append(time.perf_counter() - start)
        if time.perf_counter() - began > limit:
            break
    # the first one sets up what later ones reuse
    return {count: statistics.median(times[1:] or times) for count, times in found.items()}


def check_memory(free: int | None) -> CheckResult:
    """Whether enough main memory is free.

    Args:
        free: bytes; None if the system does not report it.
    """
    if free is None:
        return CheckResult("memory", "ok", "this system does not report free memory")
    found = f"{free / 1e9:.1f} GB free"
    if free < TOO_LITTLE_MEMORY:
        return CheckResult("memory", "problem", found, "training needs at least 1 GB: close other programs")
    if free < LITTLE_MEMORY:
        return CheckResult("memory", "warning", found, "use cache.placement: disk and small batches")
    return CheckResult("memory", "ok", found)


def check_folder(folder: Path) -> CheckResult:
    """Whether ``folder`` can be written, its free space and its speed."""
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
        return CheckResult(
            "disk", "problem", f"{probed}: cannot be written ({why})", "choose another with --dir"
        )
    found = f"{probed.resolve()}: {space / 1e9:,.1f} GB free, {rate / 1e6:,.0f} MB/s written"
    if space < TOO_LITTLE_SPACE:
        return CheckResult(
            "disk", "problem", found, "no store fits here: make room or choose another with --dir"
        )
    if space < LITTLE_SPACE:
        return CheckResult(
            "disk", "warning", found, "Real-IAD takes 33 GB for training at 256 px; see `idif cache plan`"
        )
    if rate < SLOW_DISK:
        return CheckResult(
            "disk", "warning", found, "slow: keep features in memory (cache.placement: memory)"
        )
    return CheckResult("disk", "ok", found)


def check_weights(given: str | None) -> CheckResult:
    """The encoder's weights: the given file, or ImageNet's in torchvision's cache. Downloads nothing."""
    if given is not None and given != "imagenet":
        try:
            encoder = load_encoder(given)
        except IdifError as error:
            return CheckResult("weights", "problem", str(error), "give a file with torchvision's key names")
        return CheckResult("weights", "ok", f"{given}: SHA-256 {encoder.sha256[:12]}")
    url = ARCHITECTURES["resnet18"].imagenet().url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return CheckResult("weights", "ok", f"ImageNet's, {path}")
    return CheckResult(
        "weights",
        "warning",
        f"ImageNet's are not in {path.parent}",
        f"they are downloaded when first needed; without a network put {url} there, or give a file with "
        "--teacher-weights",
    )


def check_textures(given: str | None) -> CheckResult:
    """The folder of textures for synthetic defects; lists its files and decodes none."""
    if given == "procedural":
        return CheckResult("textures", "ok", "procedural, nothing to read")
    if given is None:
        return CheckResult(
            "textures",
            "warning",
            "not checked: no folder given",
            f"training needs corruption.textures: the folder of DTD ({DTD_URL}) or procedural; check it "
            "with --textures",
        )
    try:
        count = len(texture_files(Path(given)))
    except IdifError as error:
        return CheckResult("textures", "problem", str(error), "unpack DTD, or use procedural")
    return CheckResult("textures", "ok", f"{given}: {count:,} images")


def check_compiler() -> CheckResult:
    """The C++ compiler that torch.compile needs on a CPU."""
    names = (os.environ.get("CXX"), *COMPILERS)
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        return CheckResult(
            "compiler", "warning", "no C++ compiler", "only torch.compile needs one, e.g. apt-get install g++"
        )
    return CheckResult("compiler", "ok", compiler)


def start_rendering() -> Callable[[], CheckResult]:
    """Start off-screen rendering in its own process, since drivers may crash; the result waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-c", RENDERING], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )

    def wait() -> CheckResult:
        advice = "only `idif data synth` and `idif demo` render; see the README for the packages"
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return CheckResult("rendering", "warning", "off-screen rendering hangs", advice)
        if process.returncode:
            last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            return CheckResult("rendering", "warning", last, advice)
        return CheckResult("rendering", "ok", "off-screen rendering works")

    return wait
