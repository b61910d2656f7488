"""Self-test: builds, verifies and opens a tiny store on this machine."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cache.building.build import build_store
from cache.building.request import BuildRequest
from cache.checking.verify import verify_store
from cache.reading.store import FeatureStore
from idif.data.index import Index, Sample, View
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.errors import StoreDamaged

SIZE, VIEWS, SAMPLES = 32, (1, 2), 2


def run_self_test(folder: Path, device: torch.device) -> FeatureStore:
    """Build a store of ``SAMPLES`` noise images in ``folder`` with an untrained encoder, verify and open it.

    Raises:
        StoreDamaged: the values read differ from those written. Also the exceptions of `build_store`.
    """
    rng = np.random.default_rng(0)
    samples = []
    for number in range(SAMPLES):
        views = []
        for view in VIEWS:
            name = f"{number}_{view}.png"
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / name)
            views.append(View(view, name, None, "OK"))
        samples.append(Sample(f"noise/S{number}", "noise", "train", tuple(views)))
    store = folder / "store.zarr"
    index = Index(VIEWS, tuple(samples))
    encoders = EncoderSet((load_encoder("untrained"),), SIZE)
    build_store(BuildRequest(folder, index, store, encoders, device=device))
    found = verify_store(store)
    if not found.sound:
        raise StoreDamaged("; ".join(str(problem) for problem in found.problems))
    return FeatureStore.open(store)
