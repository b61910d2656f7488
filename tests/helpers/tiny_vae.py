"""``tiny_vae``: an untrained autoencoder of diffusers that is small enough for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from idif.encoders.frozen import ENCODERS
from idif.encoders.sd_vae import Layout, sd_vae_maker

TINY_VAE = Layout((8, 8, 8, 8), 1, 4, 4, 0.25, "nobody/tiny-vae")


@contextmanager
def installed_vae() -> Iterator[None]:
    """The family under the name ``tiny_vae`` while the block runs."""
    ENCODERS["tiny_vae"] = sd_vae_maker("tiny_vae", TINY_VAE)
    try:
        yield
    finally:
        del ENCODERS["tiny_vae"]
