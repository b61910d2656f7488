"""Impute missing views with a small inpainting network trained on normal samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.config.sections import InpainterConfig
from idif.data.batch import Batch
from idif.data.features import IMAGES, FeatureSource
from idif.encoders.frozen import FrozenEncoder
from idif.errors import CannotFinish, RunError
from idif.missing_views.imputation import ImputedViews
from idif.progress import Progress, silent
from idif.randomness import numpy_rng
from idif.training.checkpoint import load_state, load_weights, save_checkpoint
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint


class ViewInpainter(nn.Module):
    """Predicts all views of a sample from some of them: images [B,V,3,H,W] in 0..1 -> the same shape.

    The input channels are the views, one presence plane for each, and two coordinate planes, since cameras
    see the same point at different positions. Four strided convolutions and a layer over all positions are
    followed by upsampling layers, which predict the difference from the mean color of the present views.
    There is no norm, since it would remove the brightness shared by the views.
    """

    def __init__(self, views: int, width: int) -> None:
        super().__init__()
        self.views = views
        channels = [4 * views + 2, width, 2 * width, 4 * width, 4 * width]
        steps = list(pairwise(channels))
        self.down = nn.Sequential(*(_step(a, b, stride=2) for a, b in steps))
        self.everywhere = nn.Sequential(nn.Linear(4 * width, 4 * width), nn.ReLU(inplace=True))
        self.mix = _step(8 * width, 4 * width, stride=1)
        self.up = nn.ModuleList(_step(b, a, stride=1) for a, b in reversed(steps[1:]))
        self.paint = nn.Conv2d(width + 2, 3 * views, 3, padding=1)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """See the class; views not in ``visible`` bool [B,V] are ignored. Output not clamped to 0..1."""
        batch, _, _, height, width = images.shape
        keep = visible[:, :, None, None, None].to(images.dtype)
        shown, planes = images * keep, keep.expand(-1, -1, 1, height, width)
        place = _place(height, width, images).expand(batch, -1, -1, -1)
        x = self.down(torch.cat([shown.flatten(1, 2), planes.flatten(1, 2), place], dim=1))
        whole = self.everywhere(x.mean(dim=(2, 3)))[:, :, None, None].expand_as(x)
        x = self.mix(torch.cat([x, whole], dim=1))
        for step in self.up:
            x = step(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        color = shown.mean(dim=(3, 4)).sum(dim=1) / keep.sum(dim=1)[..., 0, 0]
        painted = self.paint(torch.cat([x, place], dim=1)).unflatten(1, (self.views, 3))
        whole_views: Tensor = painted + color[:, None, :, None, None]
        return whole_views


def _place(height: int, width: int, like: Tensor) -> Tensor:
    """Row and column of each pixel in -1..1: [1,2,height,width]."""
    rows, columns = (torch.linspace(-1, 1, size).to(like) for size in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def _step(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU(inplace=True))


def settings_of(config: InpainterConfig, source: FeatureSource) -> dict[str, Any]:
    """Everything a trained inpainter depends on besides the images."""
    return {
        **config.model_dump(mode="json"),
        "image_size": source.spec.image_size,
        "views": list(source.index.view_numbers),
    }


def load_inpainter(folder: Path, config: InpainterConfig, source: FeatureSource) -> ViewInpainter | None:
    """Load the inpainter saved in ``folder``; None if there is none.

    Raises:
        RunError: it was trained with other settings, or its files are damaged.
    """
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        return None
    weights = load_weights(checkpoint)
    wanted, found = settings_of(config, source), load_state(checkpoint).get("settings")
    if found != wanted:
        raise RunError(
            f"{folder}: painted views come from a network trained with {found}, but {wanted} is asked for; "
            "delete the folder to train it again"
        )
    inpainter = ViewInpainter(len(source.index.view_numbers), config.width)
    inpainter.load_state_dict(weights)
    return inpainter.eval()


def train_inpainter(
    folder: Path,
    config: InpainterConfig,
    source: FeatureSource,
    rows: Sequence[int],
    device: torch.device,
    *,
    progress: Progress = silent,
) -> ViewInpainter:
    """Train on the clean images of ``rows`` and save the result in ``folder``.

    In every epoch one to V-1 random views of each sample are hidden; the loss is the mean absolute error on
    them. The same settings give the same weights on the same kind of device.

    Raises:
        CannotFinish: the loss is no longer finite.
        RunError: no training sample has two views, so there is nothing to learn from.
    """
    if not any(sum(source.index.samples[row].present) > 1 for row in rows):
        raise RunError(
            f"{folder}: an inpainter needs training samples with two views or more; there are none"
        )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        inpainter = ViewInpainter(len(source.index.view_numbers), config.width).to(device)
    optimizer = torch.optim.AdamW(inpainter.parameters(), lr=config.lr)
    total, step = config.epochs * -(-len(rows) // config.batch_size), 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total, pct_start=0.1)
    for batch, visible in _training_batches(config, source, rows):
        target = batch.images.to(device).float() / 255
        hidden = (batch.view_mask.cpu() & ~visible).to(device)
        if hidden.any():  # a sample with a single view has none to hide
            error = (inpainter(target, visible.to(device)) - target).abs().mean(dim=(2, 3, 4))
            loss = error[hidden].mean()
            if not torch.isfinite(loss):
                raise CannotFinish(f"{folder}: the inpainter's loss is {float(loss)} at step {step + 1}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        step += 1
        progress(step, total, "training the inpainter")
    state = {"settings": settings_of(config, source)}
    save_checkpoint(
        folder, inpainter.state_dict(), state, TrainingProgress(config.epochs, step, finished=True)
    )
    return inpainter.eval()


def _training_batches(
    config: InpainterConfig, source: FeatureSource, rows: Sequence[int]
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of all epochs, each with the views bool [B,V] that are visible to the inpainter."""
    for epoch in range(config.epochs):
        rng = numpy_rng("painter", config.seed, epoch)
        order = [rows[place] for place in rng.permutation(len(rows))]
        for batch in source.batches(order, config.batch_size):
            there = batch.view_mask.cpu()
            chance = torch.from_numpy(rng.random(there.shape)).masked_fill(~there, 2.0)
            rank = chance.argsort(dim=1).argsort(dim=1)
            most = (there.sum(dim=1) - 1).clamp(min=1)
            keep = 1 + torch.from_numpy(rng.integers(0, most.numpy()))
            yield batch, there & (rank < keep[:, None])


@dataclass(frozen=True)
class Reconstructor:
    """An `Imputer` that inpaints missing views, and runs the encoders on them if they are scored."""

    inpainter: ViewInpainter
    encoders: tuple[FrozenEncoder, ...]
    """Encoders of images, on ``device``; empty if imputed views are not scored, whose features are then
    zeros."""
    device: torch.device

    @torch.inference_mode()
    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        """See `Imputer.fill`; every view can be inpainted."""
        images, visible = batch.images.to(self.device), batch.view_mask.to(self.device)
        inpainted = self.inpainter(images.float() / 255, visible)[missing.to(self.device)]
        pixels = (inpainted.clamp(0, 1) * 255).round().to(torch.uint8)
        features = {name: values for e in self.encoders for name, values in e(pixels).items()}
        return ImputedViews({IMAGES: pixels, **features}, torch.ones(len(pixels), dtype=torch.bool))
