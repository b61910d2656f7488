"""Which arithmetic a device is good at."""

from collections.abc import Mapping
from typing import Literal

import torch

FabricPrecision = Literal["32-true", "bf16-mixed"]


def fabric_precision(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> FabricPrecision:
    """Fabric's name of the training precision.

    ``auto`` takes bfloat16 where the hardware multiplies it (CUDA from Ampere on, CPUs with AMX or
    AVX512-BF16), else float32.
    """
    if wanted == "float32":
        return "32-true"
    if wanted == "bfloat16":
        return "bf16-mixed"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # torch 2.11 cannot tell what a CPU is good at
        abilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"
