"""The view transform: rotates the volume to each camera and projects it (STN, Eq. 8)."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def default_rig(view_numbers: Sequence[int]) -> dict[int, tuple[float, float, float]]:
    """Initial camera angles: the first camera looks straight down, the others are tilted by 45 degrees around
    it, as in Real-IAD.

    The second camera is at the right of the first one's image, the others follow counterclockwise. The angles
    are learned from these initial values.

    Returns:
        Camera number -> (azimuth, tilt, roll) in degrees, see `rotation_matrices`.
    """
    around = view_numbers[1:]
    step = 360 / max(len(around), 1)
    return {view_numbers[0]: (0.0, 0.0, 0.0)} | {
        number: ((270.0 - step * place) % 360, 45.0, 0.0) for place, number in enumerate(around)
    }


def rotation_matrices(angles: Tensor) -> Tensor:
    """Camera-to-world rotations [V,3,3] of (azimuth, tilt, roll) [V,3] in radians.

    R = Rz(azimuth) Rx(tilt) Rz(roll), acting on (x, y, z): x along the grid's width, y along its
    height (downwards), z along its depth, which the camera of zero angles looks along. A tilted camera
    stands at the bottom of that camera's image for azimuth 0, at its left for 90, its top for 180, its
    right for 270.
    """
    azimuth, tilt, roll = angles.unbind(-1)
    zero, one = torch.zeros_like(azimuth), torch.ones_like(azimuth)

    def about_z(angle: Tensor) -> Tensor:
        c, s = angle.cos(), angle.sin()
        return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=-1).view(-1, 3, 3)

    c, s = tilt.cos(), tilt.sin()
    about_x = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], dim=-1).view(-1, 3, 3)
    rotations: Tensor = about_z(azimuth) @ about_x @ about_z(roll)
    return rotations


class ViewTransform(nn.Module):
    """f_p [B,V,C,h,w] from P [B,d,D,H,W]: the volume projected to each camera.

    Every view has three learned angles alpha(v), initialized from the rig; depth is collapsed by a learned
    1x1 convolution over D*d channels, since a mean would blur.
    """

    def __init__(
        self,
        view_numbers: Sequence[int],
        rig: Mapping[int, tuple[float, float, float]],
        width: int,
        depth: int,
        channels: int,
    ) -> None:
        super().__init__()
        degrees = default_rig(view_numbers) | {n: tuple(a) for n, a in rig.items() if n in view_numbers}
        radians = [[math.radians(angle) for angle in degrees[number]] for number in view_numbers]
        self.angles = nn.Parameter(torch.tensor(radians, dtype=torch.float32))
        self.collapse = nn.Conv2d(width * depth, channels, 1)

    def rotate(self, volume: Tensor) -> Tensor:
        """P [B,d,D,H,W] -> [B,V,d,D,H,W], each view's volume in its camera's axes; zero outside."""
        batch, width, depth, height, breadth = volume.shape
        views = len(self.angles)
        turn = F.pad(rotation_matrices(self.angles), (0, 1))
        grid = F.affine_grid(turn, [views, 1, depth, height, breadth], align_corners=False)
        # one sampling grid per view, shared by all samples and channels
        stacked = volume.float().reshape(1, batch * width, depth, height, breadth)
        turned = F.grid_sample(
            stacked.expand(views, -1, -1, -1, -1), grid, padding_mode="zeros", align_corners=False
        )
        return turned.view(views, batch, width, depth, height, breadth).transpose(0, 1)

    def forward(self, volume: Tensor, size: tuple[int, int]) -> Tensor:
        """P [B,d,D,H,W] -> f_p [B,V,C,h,w] with (h, w) = ``size``."""
        seen = self.collapse_depth(self.rotate(volume).flatten(0, 1), size)
        return seen.view(len(volume), len(self.angles), -1, *size)

    def rotation_operators(self, grid: tuple[int, int, int]) -> Tensor:
        """`rotate` of a D x H x W volume as one voxel-to-voxel matrix per view: [V,D*H*W,D*H*W]."""
        voxels = math.prod(grid)
        each = torch.eye(voxels, device=self.angles.device).view(voxels, 1, *grid)
        return self.rotate(each).flatten(2).transpose(0, 1)

    def project(self, volume: Tensor, turn: Tensor, size: tuple[int, int]) -> Tensor:
        """P [N,d,D,H,W] -> f_p [N,C,h,w] of one view; ``turn`` is its matrix from `rotation_operators`."""
        return self.collapse_depth((volume.flatten(2) @ turn).view_as(volume), size)

    def collapse_depth(self, turned: Tensor, size: tuple[int, int]) -> Tensor:
        """Collapse depth by the learned 1x1 convolution and resize: [N,d,D,H,W] -> [N,C,h,w]."""
        seen = self.collapse(turned.flatten(1, 2))
        return F.interpolate(seen, size=size, mode="bilinear", align_corners=False)
