"""`METHODS`: every method that a config can name."""

from typing import Any

from idif.methods.causal_film.spec import CAUSAL_FILM_SPEC
from idif.methods.deco_diff.spec import DECO_DIFF_SPEC
from idif.methods.idif.spec import IDIF_SPEC
from idif.methods.memory.spec import PADIM_SPEC, PATCHCORE_SPEC
from idif.methods.msflow.spec import MSFLOW_SPEC
from idif.methods.pooled.spec import POOLED_AUTOENCODER_SPEC, POOLED_NEIGHBORS_SPEC
from idif.methods.protocol import MethodSpec
from idif.methods.supcon.spec import SUPCON_SPEC
from idif.methods.uniad.spec import UNIAD_SPEC

METHODS: dict[str, MethodSpec[Any]] = {
    "causal-film": CAUSAL_FILM_SPEC,
    "deco-diff": DECO_DIFF_SPEC,
    "idif": IDIF_SPEC,
    "msflow": MSFLOW_SPEC,
    "padim": PADIM_SPEC,
    "patchcore": PATCHCORE_SPEC,
    "pooled-autoencoder": POOLED_AUTOENCODER_SPEC,
    "pooled-neighbors": POOLED_NEIGHBORS_SPEC,
    "supcon": SUPCON_SPEC,
    "uniad": UNIAD_SPEC,
}
"""``method.name`` of a config -> the method."""
