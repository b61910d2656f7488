"""What the engine asks of a method: losses while training, maps while testing."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Method(nn.Module):
    """A trainable head over frozen features. Purely abstract: nothing is inherited but torch's own."""

    @abstractmethod
    def forward(
        self, corrupted: Tensor, features: dict[str, Tensor], view_mask: Tensor, defects: Tensor
    ) -> dict[str, Tensor]:
        """The training losses.

        Args:
            corrupted: float32 [B,V,3,H,W] in 0..1, the student's input.
            features: {layer: [B,V,C,h,w]}, the frozen encoder's features: of the clean images, or of the
                corrupted ones where ``Task.encoder`` is given.
            view_mask: bool [B,V], the views kept; at least one of each sample.
            defects: bool [B,V,H,W], the pixels that were corrupted.

        Returns:
            Scalars: ``loss``, which is minimised, and its parts by name.
        """

    @abstractmethod
    def encode(self, images: Tensor, view_mask: Tensor) -> Any:
        """What depends on each view alone, so that view subsets can share it.

        Args:
            images: float32 [B,V,3,H,W] in 0..1.
            view_mask: bool [B,V], the views present.
        """

    @abstractmethod
    def anomaly_maps(self, encoded: Any, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Anomaly maps from what `encode` returned, for the views of ``view_mask`` alone.

        Returns:
            float32 [B,V,H,W], higher is more anomalous; zero where a view is dropped. A dropped view's
            pixels and features have no influence on the others' maps.
        """

    @abstractmethod
    def subset_maps(self, encoded: Any, features: dict[str, Tensor], view_masks: Tensor) -> Tensor:
        """`anomaly_maps` for K choices of views of the same samples, sharing what they have in common.

        A method without anything to share gives
        ``torch.cat([self.anomaly_maps(encoded, features, mask)[mask] for mask in view_masks])``.

        Args:
            encoded: what `encode` returned.
            features: {layer: [B,V,C,h,w]}.
            view_masks: bool [K,B,V]; a sample may have no view at all in some of them.

        Returns:
            float32 [P,H,W]: the maps of the P kept views, in the order of ``view_masks.nonzero()``.
        """

    @abstractmethod
    def traceable(self) -> nn.Module:
        """The test pass as one module that can be exported, sharing the weights; the method is in eval mode.

        It maps (images, features, view_mask), as `encode` and `anomaly_maps` take them but finite on absent
        views too, to `anomaly_maps`' result. No shape and no branch in it depends on a value; a sample
        without any view gets zeros.
        """
