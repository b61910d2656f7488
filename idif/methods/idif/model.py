"""IDIF put together: encoder, consistency bottleneck, voxel, view transform, decoders (Fig. 2)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.encoders.preparation import normalize
from idif.methods.idif.bottleneck import ConsistencyBottleneck
from idif.methods.idif.config import IDIFConfig
from idif.methods.idif.conv3d import Conv3dFusion
from idif.methods.idif.decoder import ViewDecoders
from idif.methods.idif.encoder import StudentEncoder
from idif.methods.idif.feature_distance import combine_maps, cosine_distance, distillation_loss
from idif.methods.idif.layers import LayerSpec
from idif.methods.idif.perturbation import Perturbation
from idif.methods.idif.view_transform import ViewTransform
from idif.methods.idif.voxel import VoxelConstruction
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.randomness import Draws

SAMPLES_AT_ONCE, VIEWS_AT_ONCE = 32, 64
"""Samples fused and views decoded at once when many choices of views are scored; bounds memory."""


class Encoded(NamedTuple):
    """Result of `IDIF.encode`."""

    f_e: Tensor
    """[B,V,C,h,w], zero on absent views."""
    size: tuple[int, int]
    """(H, W) of the images and of the anomaly maps."""


class IDIF(TrainedMethod):
    """The student of IDIF. Shapes are in `idif.data.batch`'s legend; C and h are `StudentEncoder`'s for f_E.

    With ``fusion: none`` and no bottleneck it is the baseline `dkd` (V denoisers); with ``conv3d``
    `dkd+3dconv`; with ``ivc`` and no bottleneck `dkd+ivc` (f_s = f_E and nothing is added to f_p).
    """

    def __init__(
        self,
        config: IDIFConfig,
        layers: tuple[LayerSpec, ...],
        view_numbers: tuple[int, ...],
        rig: Mapping[int, tuple[float, float, float]],
        perturbation: Perturbation | None = None,
    ) -> None:
        """A new student.

        Args:
            config: settings.
            layers: the feature maps to distill.
            view_numbers: V camera numbers.
            rig: angles of the cameras that differ from the default rig.
            perturbation: applied to clean samples by `training_step`; None outside training.
        """
        super().__init__()
        self.config, self.perturbation = config, perturbation
        self.layer_names = tuple(layer.name for layer in layers)
        self.needs = Needs(training=("images", *self.layer_names), scoring=("images", *self.layer_names))
        views, voxel = len(view_numbers), config.voxel
        shared, stages = config.encoder == "shared", config.encoder_stages
        self.encoder = StudentEncoder(views, config.norm, shared=shared, stages=stages)
        c = self.encoder.channels
        self.bottleneck = (
            ConsistencyBottleneck(views, c, config.latent_channels, config.norm)
            if config.bottleneck
            else None
        )
        self.voxel: VoxelConstruction | None = None
        self.transform: ViewTransform | None = None
        self.conv3d: Conv3dFusion | None = None
        if config.fusion == "ivc":
            grid = (voxel.depth, voxel.height, voxel.width)
            self.voxel = VoxelConstruction(
                views, c, grid, voxel.channels, config.blocks, config.attention_heads
            )
            self.transform = ViewTransform(view_numbers, rig, voxel.channels, voxel.depth, c)
        elif config.fusion == "conv3d":
            self.conv3d = Conv3dFusion(c, config.blocks)
        self.decoders = ViewDecoders(
            views, c, layers, config.decoder_blocks, config.norm, mean_prior=config.mean_prior
        )

    def prepare(self, batches: Iterable[Batch]) -> None:
        """See `LearnsStatistics`: the means of ``mean_prior``; without it nothing is read."""
        if self.decoders.means is not None:
            self.decoders.means.learn(batches)

    def fuse(self, f_e: Tensor, view_mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoder input [B,V,C,h,w] = f_p + f_c (Eq. 9), and the bottleneck's losses while training.

        Raises:
            ValueError: a sample without any view.
        """
        if not view_mask.any(dim=1).all():
            raise ValueError("a sample has all its views dropped; at least one must be kept")
        specific, common, losses = f_e * view_mask[:, :, None, None, None], None, {}
        if self.bottleneck is not None:
            common, specific, losses = self.bottleneck(f_e, view_mask)
        fused = specific
        if self.voxel is not None and self.transform is not None:
            fused = self.transform(self.voxel(specific, view_mask), f_e.shape[-2:])
        elif self.conv3d is not None:
            fused = self.conv3d(specific, view_mask)
        if common is not None:
            fused = fused + common[:, None]
        return fused, losses

    def _decode(
        self, f_e: Tensor, features: dict[str, Tensor], view_mask: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        fused, losses = self.fuse(f_e, view_mask)
        sizes = {name: (f.shape[-2], f.shape[-1]) for name, f in features.items()}
        return self.decoders(fused, sizes), losses

    def decode(self, encoded: Encoded, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        """The student's prediction of the teacher's features, {layer: [B,V,C,h,w]}, sized as ``features``."""
        return self._decode(encoded.f_e, features, view_mask)[0]

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`: corrupted images, the features of the clean ones as targets."""
        assert self.perturbation is not None, "a student without textures is not trained"
        perturbed = self.perturbation(batch, draws)
        # the bottleneck uses torch's global generator: seeded at each step, so that a resumed run repeats it
        draws.seed_torch()
        return self.losses(perturbed.images, batch.features(self.layer_names), perturbed.view_mask)

    def losses(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        """L = alpha L_distill + beta L_IB (Eq. 10) and its parts, scalars.

        Args:
            images: float32 [B,V,3,H,W] in 0..1, the student's input.
            features: {layer: [B,V,C,h,w]}, the frozen encoder's features of the clean images.
            view_mask: bool [B,V], the views kept; at least one of each sample.
        """
        f_e = self.encoder(images, view_mask)
        student, losses = self._decode(f_e, features, view_mask)
        losses = {"distill": distillation_loss(student, features, view_mask), **losses}
        total = self.config.distill_weight * losses["distill"]
        if self.bottleneck is not None:
            total = total + self.config.ib_weight * (losses["ib"] + self.config.kl_weight * losses["kl"])
        return {"loss": total, **losses}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`: cosine distance per scale, upsampled and combined."""
        encoded = self.encode(batch.images.float() / 255, batch.view_mask)
        maps = self.anomaly_maps(encoded, batch.features(self.layer_names), batch.view_mask)
        return Scores(maps={"map": maps})

    def encode_batch(self, batch: Batch) -> Encoded:
        """See `ScoresSubsets`; the encoder runs once for each view."""
        return self.encode(batch.images.float() / 255, batch.view_mask)

    def score_subsets(self, encoded: Encoded, batch: Batch, view_masks: Tensor) -> Tensor:
        """See `ScoresSubsets`."""
        return self.subset_maps(encoded, batch.features(self.layer_names), view_masks)

    @property
    def predicted_arrays(self) -> tuple[str, ...]:
        """See `PredictsFeatures`."""
        return self.layer_names

    def feature_distance(self, batch: Batch, constant: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `PredictsFeatures`: cosine distance, mean over positions and scales."""
        features = batch.features(self.layer_names)
        if constant is None:
            encoded = self.encode(batch.images.float() / 255, batch.view_mask)
            predicted = self.decode(encoded, features, batch.view_mask)
        else:
            predicted = {name: constant[name].expand_as(features[name]) for name in self.layer_names}
        each = [cosine_distance(predicted[name], f).mean(dim=(2, 3)) for name, f in features.items()]
        return torch.stack(each).mean(dim=0)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "head": "cosine",
            "map": f"cosine distance per scale, upsampled bilinearly, {self.config.combine} of scales",
        }

    def encode(self, images: Tensor, view_mask: Tensor) -> Encoded:
        """Student features of each view, independent of the other views.

        Args:
            images: float32 [B,V,3,H,W] in 0..1.
            view_mask: bool [B,V], the views present.
        """
        return Encoded(self.encoder(images, view_mask), (images.shape[-2], images.shape[-1]))

    def anomaly_maps(self, encoded: Encoded, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Anomaly maps float32 [B,V,H,W] from `encode`'s result, for the views of ``view_mask``.

        Zero for dropped views, whose pixels and features have no influence on the other maps.
        """
        student = self.decode(encoded, features, view_mask)
        return combine_maps(student, features, view_mask, encoded.size, self.config.combine)

    def subset_maps(self, encoded: Encoded, features: dict[str, Tensor], view_masks: Tensor) -> Tensor:
        """`anomaly_maps` [P,H,W] of the P kept views of ``view_masks`` [K,B,V], in the order of its nonzeros.

        Only the kept views are fused and decoded.
        """
        _, sample, view = view_masks.nonzero(as_tuple=True)
        if self.bottleneck is None and self.config.fusion == "none":
            maps = self.anomaly_maps(encoded, features, view_masks.any(dim=0))
            return maps[sample, view]
        fused = self._fuse_subsets(encoded.f_e, view_masks)
        found = fused.new_empty((len(fused), *encoded.size), dtype=torch.float32)
        sizes = {name: (f.shape[-2], f.shape[-1]) for name, f in features.items()}
        for slot in sorted(set(view.tolist())):
            decoder = self.decoders.single_view(slot)
            # channels last like the decoder's output: mixed layouts make the distance three times as slow
            teacher = {
                name: f[:, slot].float().permute(0, 2, 3, 1).contiguous() for name, f in features.items()
            }
            for part in (view == slot).nonzero()[:, 0].split(VIEWS_AT_ONCE):
                student = decoder(fused[part, None], sizes)
                rows = sample[part]
                wanted = {name: f[rows].permute(0, 3, 1, 2)[:, None] for name, f in teacher.items()}
                kept = view_masks.new_ones(len(part), 1)
                found[part] = combine_maps(student, wanted, kept, encoded.size, self.config.combine)[:, 0]
        return found

    def export_module(self) -> nn.Module:
        """See `SupportsExport`."""
        return ExportIDIF(self)

    def _fuse_subsets(self, f_e: Tensor, view_masks: Tensor) -> Tensor:
        """Decoder inputs [P,C,h,w] of the kept views of ``view_masks`` [K,B,V], in their order."""
        choice, sample = view_masks.any(dim=2).nonzero(as_tuple=True)
        kept = view_masks[choice, sample]
        place = (view_masks.flatten().cumsum(0) - 1).view_as(view_masks)[choice, sample]
        fused = f_e.new_empty(int(view_masks.sum()), *f_e.shape[2:])
        brought = None if self.bottleneck is None else self.bottleneck.per_view_contribution(f_e)
        turns = None
        if self.transform is not None and self.voxel is not None:
            turns = self.transform.rotation_operators(self.voxel.grid)
        for count in sorted(set(kept.sum(dim=1).tolist())):
            for part in (kept.sum(dim=1) == count).nonzero()[:, 0].split(SAMPLES_AT_ONCE):
                slots = kept[part].nonzero()[:, 1].view(-1, count)
                rows = sample[part, None]
                specific, common = f_e[rows, slots], None
                if self.bottleneck is not None and brought is not None:
                    common = self.bottleneck.common_from_contributions(brought[rows, slots])
                    specific = specific - common[:, None]
                f_p = self._f_p_of_views(specific, slots, turns)
                fused[place[part].gather(1, slots)] = f_p if common is None else f_p + common[:, None]
        return fused

    def _f_p_of_views(self, specific: Tensor, slots: Tensor, turns: Tensor | None) -> Tensor:
        """f_p [N,n,C,h,w] of the kept views, from f_s, slots [N,n] and the rotation operators ``turns``."""
        if self.voxel is not None and self.transform is not None and turns is not None:
            volume, f_p = self.voxel.forward_kept(specific, slots), torch.empty_like(specific)
            size = (specific.shape[-2], specific.shape[-1])
            for slot in sorted(set(slots.flatten().tolist())):
                chosen, at = (slots == slot).nonzero(as_tuple=True)
                f_p[chosen, at] = self.transform.project(volume[chosen], turns[slot], size)
            return f_p
        if self.conv3d is not None:
            views = self.decoders.views
            rows = torch.arange(len(slots), device=slots.device)[:, None]
            whole = specific.new_zeros(len(slots), views, *specific.shape[2:])
            whole[rows, slots] = specific
            mask = torch.zeros(whole.shape[:2], dtype=torch.bool, device=slots.device)
            mask[rows, slots] = True
            fused: Tensor = self.conv3d(whole, mask)[rows, slots]
            return fused
        return specific


class ExportStudent(nn.Module):
    """The student of an `IDIF` in eval mode: predicts the teacher's features.

    Unlike `IDIF`, it encodes absent views too; at test a view's feature does not depend on other views. The
    volume is rotated by precomputed matrices, so that the graph contains no resampling.
    """

    turns: Tensor

    def __init__(self, model: IDIF) -> None:
        super().__init__()
        assert not model.training, "batch statistics cannot be exported"
        self.encoder, self.bottleneck, self.decoders = model.encoder, model.bottleneck, model.decoders
        self.voxel, self.transform, self.conv3d = model.voxel, model.transform, model.conv3d
        if model.voxel is not None and model.transform is not None:
            self.register_buffer("turns", model.transform.rotation_operators(model.voxel.grid).detach())

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        """{layer: [B,V,C,h,w]}, sized as ``features``; undefined for absent views.

        Args:
            images: float32 [B,V,3,H,W] in 0..1, finite on absent views too.
            features: {layer: [B,V,C,h,w]}; only the sizes are used.
            view_mask: bool [B,V].
        """
        f_e = encode_all(self.encoder, images).contiguous()
        common = None
        if self.bottleneck is None:
            specific = f_e * view_mask[:, :, None, None, None]
        else:
            common, specific, _ = self.bottleneck(f_e, view_mask)
        fused = specific
        if self.voxel is not None and self.transform is not None:
            volume = self.voxel(specific, view_mask)
            turned = (volume.flatten(2)[:, None] @ self.turns).unflatten(-1, self.voxel.grid)
            size = (f_e.shape[-2], f_e.shape[-1])
            fused = self.transform.collapse_depth(turned.flatten(0, 1), size).view_as(f_e)
        elif self.conv3d is not None:
            fused = self.conv3d(specific, view_mask)
        if common is not None:
            fused = fused + common[:, None]
        sizes = {name: (f.shape[-2], f.shape[-1]) for name, f in features.items()}
        student: dict[str, Tensor] = self.decoders(fused, sizes)
        return student


class ExportIDIF(nn.Module):
    """The maps of `IDIF.encode` and `IDIF.anomaly_maps`, of a model in eval mode."""

    def __init__(self, model: IDIF) -> None:
        super().__init__()
        self.student, self.combine = ExportStudent(model), model.config.combine

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Maps float32 [B,V,H,W], zero for absent views, thus for all of a sample without any.

        Arguments as `ExportStudent`.
        """
        student = self.student(images, features, view_mask)
        size = (images.shape[-2], images.shape[-1])
        maps = combine_maps(student, features, view_mask, size, self.combine)
        # the mean over no views is not finite: this zeroes the maps of samples without views
        return maps.masked_fill(~view_mask[:, :, None, None], 0.0)


def encode_all(encoder: StudentEncoder, images: Tensor) -> Tensor:
    """f_E [B,V,C,h,w] of every view of ``images`` [B,V,3,H,W], present or not."""
    views, pixels = images.shape[1], normalize(images)
    if len(encoder.trunks) > 1:
        return torch.stack([trunk(pixels[:, view]) for view, trunk in enumerate(encoder.trunks)], dim=1)
    # the trunk's weights are channels last, and so is its output
    shared: Tensor = encoder.trunks[0](pixels.flatten(0, 1)).contiguous()
    return shared.view(-1, views, *shared.shape[1:])
