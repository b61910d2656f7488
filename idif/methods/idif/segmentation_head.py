"""The segmentation head (DeSTSeg): a small network, instead of a cosine, compares teacher and student."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.encoders.encode import encode_present
from idif.encoders.frozen import FrozenEncoder
from idif.methods.idif.layers import LayerSpec
from idif.methods.idif.model import IDIF, Encoded, ExportStudent
from idif.methods.idif.perturbation import Perturbation
from idif.methods.idif.pyramid import SpatialPyramid
from idif.methods.protocol import Scores, TrainedMethod
from idif.randomness import Draws

WIDTH = 256
RATES = [6, 12, 18]
"""Dilations of the spatial pyramid."""
FOCUS = 4.0
"""gamma of the focal loss, DeSTSeg's."""
HIGHEST = 100
"""Pixels of a map whose mean is the paper's view score."""


class SegmentationHead(nn.Module):
    """Defect logits [N,1,h,w] at the finest layer's h, w; two residual blocks and a spatial pyramid.

    Its norms are always batch norms, as in DeSTSeg, independent of ``method.norm``.
    """

    def __init__(self, layers: Sequence[LayerSpec], pyramid: Literal["destseg", "deeplab"]) -> None:
        # imported where they are used, here and in `losses`: commands that build no head save seconds
        from torchvision.models.resnet import BasicBlock
        from torchvision.models.segmentation.deeplabv3 import ASPP

        super().__init__()
        channels = sum(layer.channels for layer in layers)
        widen = nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.layers = tuple(sorted(layers, key=lambda layer: layer.stride))
        self.refine = nn.Sequential(
            BasicBlock(channels, WIDTH, downsample=widen),
            BasicBlock(WIDTH, WIDTH),
            SpatialPyramid(WIDTH, RATES) if pyramid == "destseg" else ASPP(WIDTH, RATES, WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, 1, 1),
        )
        for block in self.refine[:2].modules():
            if isinstance(block, nn.Conv2d):
                # as within a ResNet, which these blocks come without
                nn.init.kaiming_normal_(block.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
        """Two {layer: [N,C,h,w]} of single views -> logits [N,1,h,w].

        The network's input is the negative product of the unit-length features of each layer, upsampled and
        stacked.
        """
        size = student[self.layers[0].name].shape[-2:]
        products = [
            -F.normalize(student[layer.name].float(), dim=1) * F.normalize(teacher[layer.name].float(), dim=1)
            for layer in self.layers
        ]
        stacked = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in products]
        x = torch.cat(stacked, dim=1).contiguous(memory_format=torch.channels_last)
        if self.training and len(x) == 1:
            # the pyramid pools to one position, and batch norm statistics need more than a single value
            x = x.expand(2, -1, -1, -1)
            return self.refine(x)[:1]  # type: ignore[no-any-return]
        logits: Tensor = self.refine(x)
        return logits


class SegmentedIDIF(TrainedMethod):
    """A trained, frozen student with a segmentation head that is trained on it.

    Training uses the teacher's features of the *corrupted* images, which no store contains: the head learns
    how teacher and student differ on defects.
    """

    def __init__(
        self,
        student: IDIF,
        head: SegmentationHead,
        perturbation: Perturbation | None = None,
        encoder: FrozenEncoder | None = None,
    ) -> None:
        """A trained student with a head.

        Args:
            student: trained; frozen here.
            head: the only part that is trained.
            perturbation: applied to clean samples by `training_step`; None outside training.
            encoder: the frozen encoder, on the device, which `training_step` runs on corrupted images.
        """
        super().__init__()
        self.student, self.head = student.requires_grad_(False), head
        self.perturbation, self.teacher, self.needs = perturbation, encoder, student.needs

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of the head; the student stays in eval mode."""
        super().train(mode)
        self.student.eval()
        return self

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`; teacher and student both get the corrupted images."""
        assert self.perturbation is not None, "a head is trained with textures"
        assert self.teacher is not None, "a head is trained beside the teacher"
        # a student tells corruptions that it was trained on from others: the head must not learn from those
        draws = draws.apart("segmentation head")
        perturbed = self.perturbation(batch, draws)
        draws.seed_torch()
        features = encode_present(self.teacher, perturbed.images, perturbed.view_mask)
        return self.losses(perturbed.images, features, perturbed.view_mask, perturbed.defects)

    def losses(
        self, corrupted: Tensor, features: dict[str, Tensor], view_mask: Tensor, defects: Tensor
    ) -> dict[str, Tensor]:
        """Focal and L1 loss over the kept views' pixels, at the finest layer's size; scalars.

        Args:
            corrupted: float32 [B,V,3,H,W] in 0..1.
            features: {layer: [B,V,C,h,w]}, the frozen encoder's features of the corrupted images.
            view_mask: bool [B,V], the views kept; at least one of each sample.
            defects: bool [B,V,H,W], true on corrupted pixels.
        """
        from torchvision.ops import sigmoid_focal_loss

        with torch.no_grad():
            student = self.student.decode(self.student.encode(corrupted, view_mask), features, view_mask)
        logits = self._logits(student, features, view_mask)
        shrunk = F.interpolate(
            defects[view_mask][:, None].float(), size=logits.shape[-2:], mode="bilinear", align_corners=False
        )
        wanted = (shrunk >= 0.5).float()
        focal = sigmoid_focal_loss(logits.float(), wanted, alpha=-1, gamma=FOCUS, reduction="mean")
        l1 = F.l1_loss(logits.float().sigmoid(), wanted)
        return {"loss": focal + l1, "focal": focal, "l1": l1}

    def _logits(self, student: dict[str, Tensor], teacher: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Logits [N,1,h,w] of the N views of ``view_mask``."""
        kept = {name: f[view_mask] for name, f in student.items()}
        logits: Tensor = self.head(kept, {name: teacher[name][view_mask] for name in kept})
        return logits

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`: the probability of a defect, 0..1."""
        encoded = self.encode(batch.images.float() / 255, batch.view_mask)
        maps = self.anomaly_maps(encoded, batch.features(self.student.layer_names), batch.view_mask)
        return Scores(maps={"map": maps})

    def encode_batch(self, batch: Batch) -> Encoded:
        """See `ScoresSubsets`; the student's encoder runs once for each view."""
        return self.encode(batch.images.float() / 255, batch.view_mask)

    def score_subsets(self, encoded: Encoded, batch: Batch, view_masks: Tensor) -> Tensor:
        """See `ScoresSubsets`."""
        return self.subset_maps(encoded, batch.features(self.student.layer_names), view_masks)

    @property
    def predicted_arrays(self) -> tuple[str, ...]:
        """See `PredictsFeatures`."""
        return self.student.predicted_arrays

    def feature_distance(self, batch: Batch, constant: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `PredictsFeatures`: that of the student."""
        return self.student.feature_distance(batch, constant)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "head": "segmentation",
            "map": "probability of a defect from the segmentation head, upsampled bilinearly",
            "method_view_score": f"mean of the {HIGHEST} highest pixels",
        }

    def reduce_maps(self, maps: Tensor) -> Tensor:
        """See `ReducesMaps`: the mean of the `HIGHEST` highest pixels, of all where a map has fewer."""
        pixels = maps.flatten(-2).float()
        return pixels.topk(min(HIGHEST, pixels.shape[-1]), dim=-1, sorted=False).values.mean(-1)

    def encode(self, images: Tensor, view_mask: Tensor) -> Encoded:
        """See `IDIF.encode`."""
        return self.student.encode(images, view_mask)

    def anomaly_maps(self, encoded: Encoded, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """The probability of a defect, 0..1; see `IDIF.anomaly_maps`."""
        student = self.student.decode(encoded, features, view_mask)
        logits = self._logits(student, features, view_mask)
        found = F.interpolate(
            logits.float().sigmoid(), size=encoded.size, mode="bilinear", align_corners=False
        )
        maps = found.new_zeros(*view_mask.shape, *encoded.size)
        maps[view_mask] = found[:, 0]
        return maps

    def subset_maps(self, encoded: Encoded, features: dict[str, Tensor], view_masks: Tensor) -> Tensor:
        """See `IDIF.subset_maps`; only the encoder runs once for all choices of views."""
        found = [encoded.f_e.new_empty((0, *encoded.size), dtype=torch.float32)]
        for mask in view_masks:
            seen = mask.any(dim=1)
            if seen.any():
                some = Encoded(encoded.f_e[seen], encoded.size)
                maps = self.anomaly_maps(some, {n: f[seen] for n, f in features.items()}, mask[seen])
                found.append(maps[mask[seen]])
        return torch.cat(found)

    def export_module(self) -> nn.Module:
        """See `SupportsExport`."""
        return ExportSegmentation(self.student, self.head)


class ExportSegmentation(nn.Module):
    """The maps of a `SegmentedIDIF` in eval mode; the head runs on absent views too."""

    def __init__(self, student: IDIF, head: SegmentationHead) -> None:
        super().__init__()
        self.student, self.head = ExportStudent(student), head

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Maps float32 [B,V,H,W], zero for absent views; arguments as `ExportStudent`."""
        student = self.student(images, features, view_mask)
        logits = self.head(
            {name: f.flatten(0, 1) for name, f in student.items()},
            {name: features[name].flatten(0, 1) for name in student},
        )
        size = (images.shape[-2], images.shape[-1])
        found = F.interpolate(logits.float().sigmoid(), size=size, mode="bilinear", align_corners=False)
        maps = found.view(-1, images.shape[1], *size)
        return maps.masked_fill(~view_mask[:, :, None, None], 0.0)
