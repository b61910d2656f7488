"""Fits anomalib's PatchCore and scores a test set, run by `against_anomalib` in anomalib's environment.

    python anomalib_patchcore.py IMAGES OUT.npz --weights resnet18.safetensors [--size 256] [--coreset 0.1]

IMAGES holds train/good, test/good and test/bad. OUT gets scores float32 [N], maps float32 [N,size,size] and
the file names. Post-processing, metrics and pictures are switched off, so that only the model is timed.
"""

import argparse
import logging
from pathlib import Path

import anomalib
import numpy as np
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from safetensors.torch import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--coreset", type=float, default=0.1)
    options = parser.parse_args()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    model = Patchcore(
        backbone="resnet18",
        layers=("layer2", "layer3"),
        pre_trained=False,
        coreset_sampling_ratio=options.coreset,
        pre_processor=Patchcore.configure_pre_processor((options.size, options.size)),
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )
    network = model.model.feature_extractor.feature_extractor
    weights = load_file(options.weights)
    used = {name: weights[name] for name in network.state_dict() if name in weights}
    missing = set(network.state_dict()) - set(used)
    assert not {name for name in missing if not name.endswith("num_batches_tracked")}, missing
    network.load_state_dict(used, strict=False)
    data = Folder(
        name="images",
        root=options.images,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        num_workers=0,
        val_split_mode="none",
    )
    engine = Engine(
        accelerator="cpu", devices=1, logger=False, limit_val_batches=0, default_root_dir=options.out.parent
    )
    engine.fit(model=model, datamodule=data)
    batches = engine.predict(model=model, dataloaders=data.test_dataloader()) or []
    np.savez(
        options.out,
        scores=np.concatenate([batch.pred_score.float().numpy().ravel() for batch in batches]),
        maps=np.concatenate([batch.anomaly_map.float().numpy().squeeze() for batch in batches]),
        files=np.array([Path(path).name for batch in batches for path in batch.image_path]),
        version=anomalib.__version__,
    )


if __name__ == "__main__":
    main()
