"""The `MethodSpec`s of the baselines on pooled arrays."""

from idif.methods.pooled.autoencoder import PooledAutoencoder
from idif.methods.pooled.config import PooledAutoencoderConfig, PooledNeighborsConfig
from idif.methods.pooled.neighbors import PooledNeighbors
from idif.methods.protocol import MethodSpec, Stage

POOLED_AUTOENCODER_SPEC: MethodSpec[PooledAutoencoderConfig] = MethodSpec(
    build=PooledAutoencoder,
    stages=lambda config: (Stage("autoencoder", config),),
    smallest=lambda: PooledAutoencoderConfig(widths=(4, 2)),
)
POOLED_NEIGHBORS_SPEC: MethodSpec[PooledNeighborsConfig] = MethodSpec(
    build=PooledNeighbors,
    stages=lambda config: (Stage("fit", config),),
    smallest=PooledNeighborsConfig,
)
