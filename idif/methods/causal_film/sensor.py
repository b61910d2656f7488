"""The sensor network: Mamba layers over a series, and the scale and shift (FiLM) that they give."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.methods.causal_film.config import SensorConfig
from idif.methods.causal_film.selective_scan import selective_scan

STEP_RANGE = (1e-3, 1e-1)
"""Range of the initial step sizes of the scan, drawn log-uniformly."""


class Mamba(nn.Module):
    """A Mamba block, [B,T,D] -> [B,T,D]; parameters and their initial values are those of its authors."""

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        inner, rank = config.width * config.expand, math.ceil(config.width / 16)
        self.sizes = (rank, config.state, config.state)
        self.project_in = nn.Linear(config.width, 2 * inner, bias=False)
        taps = config.convolution
        self.convolution = nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1)
        self.project_scan = nn.Linear(inner, sum(self.sizes), bias=False)
        self.project_step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, config.state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.project_out = nn.Linear(inner, config.width, bias=False)
        nn.init.uniform_(self.project_step.weight, -(rank**-0.5), rank**-0.5)
        low, high = map(math.log, STEP_RANGE)
        steps = torch.exp(torch.rand(inner) * (high - low) + low).clamp(min=1e-4)
        with torch.no_grad():
            self.project_step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus gives the steps

    def forward(self, series: Tensor) -> Tensor:
        """Series [B,T,D] -> [B,T,D]; a step depends on earlier ones and itself."""
        values, gate = self.project_in(series).chunk(2, dim=-1)
        convolved = self.convolution(values.transpose(1, 2))[..., : series.shape[1]]
        values = F.silu(convolved.transpose(1, 2)).float()
        step, write, read = self.project_scan(values).float().split(self.sizes, dim=-1)
        step = F.softplus(self.project_step(step).float())
        rate = -torch.exp(self.log_rate.float())
        scanned = selective_scan(values, step, rate, write, read, self.skip.float())
        mixed: Tensor = self.project_out(scanned * F.silu(gate))
        return mixed


class MambaLayer(nn.Module):
    """A Mamba block behind a norm, added to its input."""

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.mamba = Mamba(config)

    def forward(self, series: Tensor) -> Tensor:
        """Series [B,T,D] -> [B,T,D]."""
        changed: Tensor = series + self.mamba(self.norm(series))
        return changed


class SensorModulator(nn.Module):
    """Sensor series -> scale and shift of the channels of video and sound; initially 1 and 0."""

    def __init__(self, channels: int, width: int, config: SensorConfig) -> None:
        """For series of ``channels`` sensors and embeddings of ``width`` channels."""
        super().__init__()
        self.project_in = nn.Linear(channels, config.width)
        self.layers = nn.ModuleList(MambaLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.project_out = nn.Linear(config.width, 2 * width)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, series: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, both [B,width]; 1 and 0 for samples without a series.

        Args:
            series: float32 [B,T,sensors].
            present: bool [B].
        """
        hidden = self.project_in(series)
        for layer in self.layers:
            hidden = layer(hidden)
        change = self.project_out(self.norm(hidden)[:, -1]).masked_fill(~present[:, None], 0.0)
        scale, shift = change.chunk(2, dim=1)
        return scale + 1, shift


def modulate(tokens: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Tokens [B,T,D] with the scale and shift [B,D] of each sample."""
    return tokens * scale[:, None] + shift[:, None]
