"""Ten tiny synthetic weld runs, and a store of them."""

from pathlib import Path

import torch

from cache.building.build import build_store
from cache.building.request import BuildRequest
from idif.datasets.weld.reader import read_weld
from idif.datasets.weld.synthetic.dataset import SynthWeldRequest, synthesize_weld
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import encoder_names, find_family, learn_encoder, load_encoder

TINY = SynthWeldRequest(runs=10, seconds=0.8, video_size=64, still_size=64)
IMAGE_SIZE = 32


def make_tiny_weld(root: Path) -> None:
    """Write the runs `TINY` to ``root``."""
    synthesize_weld(root, TINY, workers=1)


def tiny_weld_encoders(root: Path) -> EncoderSet:
    """The set ``weld-tiny``; the sensors' statistics are those of the data at ``root``."""
    torch.set_num_threads(1)
    training = read_weld(root, "train")
    encoders = tuple(
        learn_encoder(name, root, training) if find_family(name).learn else load_encoder("untrained", name)
        for name in encoder_names("weld-tiny")
    )
    return EncoderSet(encoders, IMAGE_SIZE, stores_images=False)


def make_tiny_weld_store(root: Path, store: Path) -> None:
    """Build a store of all runs at ``root``."""
    build_store(BuildRequest(root, read_weld(root), store, tiny_weld_encoders(root)))
