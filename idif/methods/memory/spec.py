"""The `MethodSpec`s of PatchCore and PaDiM."""

from typing import Any, TypeVar

from idif.methods.memory.config import PaDiMConfig, PatchCoreConfig
from idif.methods.memory.padim import PaDiM
from idif.methods.memory.patchcore import PatchCore
from idif.methods.protocol import MethodSpec, ResourceRequest, Stage
from idif.methods.section import MethodSection

ConfigT = TypeVar("ConfigT", bound=MethodSection)


def one_stage(config: ConfigT) -> tuple[Stage[ConfigT], ...]:
    """The fit."""
    return (Stage("fit", config),)


def no_resources(config: MethodSection, request: ResourceRequest) -> dict[str, Any]:
    """Nothing besides the data."""
    return {}


def no_label(config: MethodSection) -> None:
    """No row of a published table."""
    return


PATCHCORE_SPEC: MethodSpec[PatchCoreConfig] = MethodSpec(
    build=PatchCore,
    stages=one_stage,
    resources=no_resources,
    label=no_label,
    smallest=lambda: PatchCoreConfig(coreset=0.2, projection=8, neighbours=3, smoothing=1.0),
)
PADIM_SPEC: MethodSpec[PaDiMConfig] = MethodSpec(
    build=PaDiM,
    stages=one_stage,
    resources=no_resources,
    label=no_label,
    smallest=lambda: PaDiMConfig(dimensions=8, smoothing=1.0),
)
