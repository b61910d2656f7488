"""Chooses the open points without the test split: trains on most training normals and scores the rest,
once as they are and once with painted defects of kinds the training corruption does not make.

    python benchmarks/holdout_defects.py --root data/mvtec3d --category cable_gland --textures DTD \
        --out scratch --size 128 --set train.epochs=10 --set train.lr=1e-3

Prints one JSON object: S-AUROC for each rule of view and sample score, the mean of all, and the settings.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import load_textures
from idif.data.batch import Batch
from idif.data.decode import decode_sample
from idif.data.features import FeatureSpec
from idif.data.index import Index
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.metrics import auroc
from idif.randomness import numpy_rng
from idif.training.loop import Task, train
from idif.training.sampling import split_holdout

Image = npt.NDArray[np.uint8]


@dataclass
class InMemory:
    """A FeatureSource over images already decoded."""

    spec: FeatureSpec
    index: Index
    images: torch.Tensor
    features: dict[str, torch.Tensor]

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `FeatureSource.batches`."""
        for start in range(0, len(order), batch_size):
            rows = torch.tensor(order[start : start + batch_size])
            shape = (len(rows), self.images.shape[1])
            yield Batch(
                rows=rows,
                images=self.images[rows],
                features={name: f[rows] for name, f in self.features.items()},
                view_mask=torch.ones(shape, dtype=torch.bool),
                labels=torch.zeros(shape, dtype=torch.bool),
                masks=torch.zeros(*shape, *self.images.shape[-2:], dtype=torch.bool),
            )


def in_memory(encoder: FrozenEncoder, index: Index, images: torch.Tensor) -> InMemory:
    flat = images.flatten(0, 1)
    parts = [encoder(chunk) for chunk in flat.split(20)]
    features = {}
    for layer in encoder.layers:
        whole = torch.cat([part[layer.name] for part in parts])
        features[layer.name] = whole.view(*images.shape[:2], *whole.shape[1:])
    return InMemory(encoder.spec(images.shape[-1], "float32"), index, images, features)


def paint_defect(image: Image, rng: np.random.Generator) -> Image:
    """One defect on the object of an image uint8 [H,W,3]: cut-and-paste, local bend, smudge or scratch."""
    size = image.shape[0]
    border = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
    on_object = np.argwhere(np.abs(image.astype(int) - border).max(axis=2) > 24)
    y, x = on_object[rng.integers(len(on_object))]
    radius = int(size * rng.uniform(0.04, 0.10))
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    fall = np.exp(-(((yy - y) ** 2 + (xx - x) ** 2) / (2 * (radius / 1.5) ** 2)))
    kind = rng.choice(["paste", "bend", "smudge", "scratch"])
    if kind == "paste":
        sy, sx = on_object[rng.integers(len(on_object))]
        moved = np.roll(image, (y - sy, x - sx), axis=(0, 1))
        turned = cv2.warpAffine(
            moved, cv2.getRotationMatrix2D((float(x), float(y)), float(rng.uniform(30, 330)), 1), (size, size)
        )
        weight = (fall > 0.5).astype(np.float32)[..., None]
        return (image * (1 - weight) + turned * weight).astype(np.uint8)
    if kind == "bend":
        angle, amount = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.6, 1.2)
        return cv2.remap(
            image,
            xx + (fall * amount * np.cos(angle)).astype(np.float32),
            yy + (fall * amount * np.sin(angle)).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    if kind == "smudge":
        gain = 1 + fall[..., None] * rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)
        return np.clip(image * gain, 0, 255).astype(np.uint8)
    angle = rng.uniform(0, 2 * np.pi)
    end = (int(x + 2 * radius * np.cos(angle)), int(y + 2 * radius * np.sin(angle)))
    shade = int(np.clip(image[y, x].mean() + rng.choice([-1, 1]) * rng.uniform(50, 100), 0, 255))
    return cv2.line(image.copy(), (int(x), int(y)), end, (shade,) * 3, max(1, size // 100), cv2.LINE_AA)


def with_defects(images: torch.Tensor, seed: int, *, all_views: bool) -> torch.Tensor:
    """uint8 [N,V,3,S,S] with defects in one to three views of every sample, or in all."""
    out = images.clone()
    for row in range(len(images)):
        rng = numpy_rng("painted defect", seed, row)
        count = images.shape[1] if all_views else rng.integers(1, 4)
        for view in rng.permutation(images.shape[1])[:count]:
            image = images[row, view].permute(1, 2, 0).contiguous().numpy()
            out[row, view] = torch.from_numpy(paint_defect(image, rng)).permute(2, 0, 1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", default="realiad_256")
    parser.add_argument("--category", required=True)
    parser.add_argument("--teacher-weights", default="imagenet")
    parser.add_argument("--textures", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--holdout", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=3, help="defects painted on each held-out sample")
    parser.add_argument("--out", type=Path, required=True, help="scratch folder for textures and checkpoints")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()

    config: Config = resolve({}, args.overrides, source="--set")[0]
    index = read_realiad(
        RealIADLayout(args.root, images=args.images), categories=[args.category], split="train"
    )
    images = torch.from_numpy(np.stack([decode_sample(args.root, s, args.size)[0] for s in index.samples]))
    encoder = load_encoder(args.teacher_weights)
    rows, held = split_holdout(range(len(index)), args.holdout, seed=12345)
    textures = load_textures(
        args.textures if args.textures == "procedural" else Path(args.textures), args.size, args.out
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    began = time.perf_counter()
    source = in_memory(encoder, index, images)
    folder = args.out / f"try-{time.time_ns()}"
    folder.mkdir(parents=True)
    method = train(config, Task("try", folder, source, rows, textures), fabric)
    seconds = time.perf_counter() - began

    normal = images[held]
    painted = [
        (hit, with_defects(normal, seed, all_views=hit == "all"))
        for hit in ("some", "all")
        for seed in range(args.repeats)
    ]
    scores: dict[str, list[npt.NDArray[np.float32]]] = {}
    method.eval()
    for hit, chosen in [("none", normal), *painted]:
        evaluated = in_memory(encoder, index.take(held), chosen)
        maps = []
        with torch.inference_mode():
            for batch in evaluated.batches(range(len(held)), 8):
                encoded = method.encode(batch.images.float() / 255, batch.view_mask)
                maps.append(method.anomaly_maps(encoded, batch.features, batch.view_mask).flatten(2))
        flat = torch.cat(maps)
        pixels = flat.shape[-1]
        for name, top in (
            ("max", 1),
            ("top100at256", max(1, 100 * pixels // 65536)),
            ("top1%", pixels // 100),
        ):
            views = flat.topk(top, dim=2).values.mean(dim=2).numpy()
            scores.setdefault(f"{hit} {name}/max", []).append(views.max(axis=1))
            scores.setdefault(f"{hit} {name}/mean", []).append(views.mean(axis=1))
    result = {}
    for name, bad in scores.items():
        hit, rule = name.split(" ")
        if hit != "none":
            (good,) = scores[f"none {rule}"]
            labels = np.concatenate([np.zeros(len(good)), np.ones(sum(map(len, bad)))])
            result[f"{rule}, {hit} views hit"] = auroc(np.concatenate([good, *bad]), labels)
    print(
        json.dumps(
            {
                "s_auroc": result,
                "mean": float(np.mean(list(result.values()))),
                "trained": len(rows),
                "held_out": len(held),
                "size": args.size,
                "seconds": round(seconds),
                "set": args.overrides,
            }
        )
    )


if __name__ == "__main__":
    main()
