"""The `MethodSpec`s of PatchCore and PaDiM."""

from typing import TypeVar

from idif.methods.memory.config import PaDiMConfig, PatchCoreConfig
from idif.methods.memory.padim import PaDiM
from idif.methods.memory.patchcore import PatchCore
from idif.methods.protocol import MethodSpec, Stage
from idif.methods.section import MethodSection

ConfigT = TypeVar("ConfigT", bound=MethodSection)


def one_stage(config: ConfigT) -> tuple[Stage[ConfigT], ...]:
    """The fit."""
    return (Stage("fit", config),)


PATCHCORE_SPEC: MethodSpec[PatchCoreConfig] = MethodSpec(
    build=PatchCore,
    stages=one_stage,
    smallest=lambda: PatchCoreConfig(coreset=0.2, projection=8, neighbours=3, smoothing=1.0),
)
PADIM_SPEC: MethodSpec[PaDiMConfig] = MethodSpec(
    build=PaDiM,
    stages=one_stage,
    smallest=lambda: PaDiMConfig(dimensions=8, smoothing=1.0),
)
