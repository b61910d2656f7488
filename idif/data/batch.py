"""The batch that crosses the seam between feature sources and everything that learns or scores.

Shape legend, used by every docstring of the project:

    B  samples in a batch       V  view slots of a sample    N  samples in all, or tokens
    C  channels                 H W  image height, width     h w  feature map height, width
    D  depth of the voxel grid  d  width of a voxel prototype
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Whole samples, complete: nothing has to be looked up again behind the seam.

    An absent view is all zeros with ``view_mask`` false; its mask is zeros too.
    """

    rows: Tensor
    """int64 [B]: rows of the source's index."""
    images: Tensor
    """uint8 [B,V,3,H,W]: clean images, RGB, 0..255."""
    features: dict[str, Tensor]
    """{layer: [B,V,C,h,w]}: the frozen encoder's features of the clean images, float16 or float32."""
    view_mask: Tensor
    """bool [B,V]: true where the view is present."""
    labels: Tensor
    """bool [B,V]: true where the view is anomalous."""
    masks: Tensor
    """bool [B,V,H,W]: true on anomalous pixels."""

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def to(self, device: torch.device) -> "Batch":
        """The same batch with every tensor on ``device``."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if f.name != "features"
        }
        features = {name: t.to(device, non_blocking=True) for name, t in self.features.items()}
        return Batch(features=features, **moved)
