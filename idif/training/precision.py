"""Training precision and convolution backend of a device."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

from idif.config.sections import TrainConfig

FabricPrecision = Literal["32-true", "bf16-mixed"]
Convolutions = Literal["direct", "winograd"]


def fabric_precision(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> FabricPrecision:
    """Fabric's name of the training precision.

    ``auto`` selects bfloat16 if the hardware supports it (CUDA since Ampere, CPUs with AMX or AVX512-BF16),
    else float32.
    """
    if wanted == "float32":
        return "32-true"
    if wanted == "bfloat16":
        return "bf16-mixed"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # torch 2.11 lacks this query: its CPUs count as without fast bfloat16
        abilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"


def training_convolutions(train: TrainConfig, device: torch.device) -> Convolutions:
    """Convolution backend of a training on ``device``."""
    if not winograd_applies(train, device) or winograd_unavailable_reason() is not None:
        return "direct"
    return "winograd"


def numerics(train: TrainConfig, device: torch.device) -> dict[str, str]:
    """Precision and convolutions, as recorded in a run's ``environment.json``."""
    return {
        "precision": fabric_precision(train.precision, device),
        "convolutions": training_convolutions(train, device),
    }


def winograd_applies(train: TrainConfig, device: torch.device) -> bool:
    """Whether Winograd convolutions apply to a training, regardless of whether numba is installed."""
    return (
        train.convolutions == "auto"
        and device.type == "cpu"
        and fabric_precision(train.precision, device) == "32-true"
    )


@cache
def winograd_unavailable_reason() -> str | None:
    """Reason, with the remedy, why `idif.kernels.winograd` is unavailable; None if it is available."""
    try:
        import idif.kernels.winograd  # noqa: F401
    except RuntimeError as error:  # it finds nowhere to keep what it compiles
        return f"set NUMBA_CACHE_DIR to a folder that can be written ({_first_line(error)})"
    except (ImportError, OSError) as error:  # missing, a numpy too new for it, a library that does not load
        missing = isinstance(error, ImportError) and error.name == "numba"
        return "install the extra `idif[cpu]`" if missing else f"mend numba ({_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def convolution_backend(convolutions: Convolutions) -> AbstractContextManager[None]:
    """Context in which convolutions use the given backend."""
    if convolutions == "direct":
        return nullcontext()
    from idif.kernels.winograd import winograd_convolutions  # numba is an extra

    return winograd_convolutions()
