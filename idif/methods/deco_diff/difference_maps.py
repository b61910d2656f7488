"""Anomaly maps from the differences between latents and their correction, and between the images of both."""

import numpy as np
import torch
from torch import Tensor, nn

IMAGE_LIMIT, LATENT_LIMIT = 0.4, 0.2
"""Differences from which on a map is 1; those of images are on a scale from -1 to 1."""
IMAGE_SIGMA, LATENT_SIGMA, GATE_SIGMA = 3.0, 1.0, 2.0
"""Standard deviations of the Gaussians; that of the latents' is in latent positions."""
GATE_SHARE = 0.4
"""Share of the gate in the fused map."""


def smoothing(size: int, sigma: float) -> Tensor:
    """The matrix float32 [size,size] of SciPy's Gaussian filter, which reflects at the ends."""
    # imported where it is used, here and below: all methods are imported where one of them is
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0)).float()


def enlarging(grid: int, size: int) -> Tensor:
    """The matrix float32 [size,grid] of scikit-image's ``resize``: linear, mirrored at the outer centers."""
    from scipy.ndimage import zoom

    enlarged = zoom(np.eye(grid), (size / grid, 1), order=1, mode="mirror", grid_mode=True)
    return torch.from_numpy(enlarged).float()


class DifferenceMaps(nn.Module):
    """Maps float32 [N,S,S] in 0..1 from differences."""

    image_smooth: Tensor
    latent_smooth: Tensor
    gate_smooth: Tensor

    def __init__(self, grid: int, size: int) -> None:
        """Maps of ``size`` pixels from latents of ``grid`` positions along a side."""
        super().__init__()
        enlarge = enlarging(grid, size)
        matrices = {
            "image_smooth": smoothing(size, IMAGE_SIGMA),
            "latent_smooth": enlarge @ smoothing(grid, LATENT_SIGMA),
            "gate_smooth": smoothing(size, GATE_SIGMA) @ enlarge,
        }
        for name, matrix in matrices.items():
            self.register_buffer(name, matrix, persistent=False)

    def of_images(self, images: Tensor, corrected: Tensor) -> Tensor:
        """The map of two images [N,3,S,S] in 0..1."""
        difference = 2 * (corrected - images).abs().amax(dim=1)
        return _apply(self.image_smooth, difference.clamp(max=IMAGE_LIMIT) / IMAGE_LIMIT)

    def of_latents(self, latents: Tensor, corrected: Tensor) -> Tensor:
        """The map of two latents [N,C,h,w]."""
        difference = (corrected - latents).abs().mean(dim=1)
        return _apply(self.latent_smooth, difference.clamp(max=LATENT_LIMIT) / LATENT_LIMIT)

    def of_gate(self, gate: Tensor) -> Tensor:
        """The map of a gate [N,C,h,w] in 0..1."""
        return _apply(self.gate_smooth, gate.mean(dim=1))


def fuse(maps: Tensor, gate: Tensor) -> Tensor:
    """The anomaly map with the gate's map."""
    return (1 - GATE_SHARE) * maps + GATE_SHARE * gate


def _apply(matrix: Tensor, values: Tensor) -> Tensor:
    return matrix @ values @ matrix.T
