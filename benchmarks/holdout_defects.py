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
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import load_textures
from idif.data.batch import Batch, make_batch
from idif.data.decode import decode_sample
from idif.data.features import IMAGES, MASKS, FeatureSpec
from idif.data.index import Index
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.metrics import auroc
from idif.randomness import numpy_rng
from idif.runs.run import method_context
from idif.training.loop import train
from idif.training.sampling import split_holdout
from idif.training.task import Task

Image = npt.NDArray[np.uint8]


@dataclass
class InMemory:
    """A FeatureSource over images already decoded."""

    spec: FeatureSpec
    index: Index
    arrays: dict[str, torch.Tensor]

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """See `FeatureSource.batches`."""
        for start in range(0, len(order), batch_size):
            rows = list(order[start : start + batch_size])
            yield make_batch(self.index, rows, {name: x[rows] for name, x in self.arrays.items()})


def in_memory(encoders: EncoderSet, index: Index, images: torch.Tensor) -> InMemory:
    """All arrays of images uint8 [N,V,3,S,S] of which none is absent."""
    parts = []
    for few in torch.split(images, 4):
        decoded = {IMAGES: few, MASKS: torch.zeros(*few.shape[:2], *few.shape[3:], dtype=torch.bool)}
        parts.append(encoders.encode(decoded, {"image": torch.ones(few.shape[:2], dtype=torch.bool)}))
    arrays = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return InMemory(encoders.spec("float32"), index, arrays)


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
        pasted: Image = (image * (1 - weight) + turned * weight).astype(np.uint8)
        return pasted
    if kind == "bend":
        angle, amount = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.6, 1.2)
        bent = cv2.remap(
            image,
            xx + (fall * amount * np.cos(angle)).astype(np.float32),
            yy + (fall * amount * np.sin(angle)).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return bent.astype(np.uint8)
    if kind == "smudge":
        gain = 1 + fall[..., None] * rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)
        smudged: Image = np.clip(image * gain, 0, 255).astype(np.uint8)
        return smudged
    angle = rng.uniform(0, 2 * np.pi)
    end = (int(x + 2 * radius * np.cos(angle)), int(y + 2 * radius * np.sin(angle)))
    shade = int(np.clip(image[y, x].mean() + rng.choice([-1, 1]) * rng.uniform(50, 100), 0, 255))
    line = cv2.line(image.copy(), (int(x), int(y)), end, (shade,) * 3, max(1, size // 100), cv2.LINE_AA)
    return line.astype(np.uint8)


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
    encoders = EncoderSet((load_encoder(args.teacher_weights),), args.size)
    rows, held = split_holdout(range(len(index)), args.holdout, seed=12345)
    textures = load_textures(
        args.textures if args.textures == "procedural" else Path(args.textures), args.size, args.out
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    began = time.perf_counter()
    source = in_memory(encoders, index, images)
    folder = args.out / f"try-{time.time_ns()}"
    folder.mkdir(parents=True)
    context = method_context(config, source.spec, index.view_numbers, index.categories)
    context = replace(context, resources={"textures": textures})
    method = train(config, Task("try", folder, source, rows, context), fabric)
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
        evaluated = in_memory(encoders, index.take(held), chosen)
        with torch.inference_mode():
            batches = evaluated.batches(range(len(held)), 8)
            flat = torch.cat([method.score(batch).maps["map"].flatten(2) for batch in batches])
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
