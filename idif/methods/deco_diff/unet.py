"""The network of DeCo-Diff: a class-conditional UNet on latents that predicts their deviation from normal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from idif.errors import ConfigError

LEVELS = (1, 2, 4)
"""Width of each level, fine to coarse, as a multiple of the first."""
BLOCKS = 2
"""Residual blocks of each level on the way down; one more on the way up."""
HALVED = 2 ** (len(LEVELS) - 1)
"""The sides of the latents must be multiples of it."""
GROUPS = 32
OPEN = 6.0
"""Logit of a gate that is open: sigmoid(6) = 0.9975."""


@dataclass(frozen=True)
class Size:
    """Width of the network, heads of its finest level, and width of the class embedding."""

    width: int
    heads: int
    context: int

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(multiple * self.width for multiple in LEVELS)

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Attention heads of each level: as many of the finest level's width as fit."""
        of_each = self.width // self.heads
        return tuple(width // of_each for width in self.level_widths)


SIZES = {
    "XS": Size(64, 4, 128),
    "S": Size(128, 4, 256),
    "M": Size(192, 6, 384),
    "L": Size(256, 8, 512),
    "XL": Size(320, 12, 640),
}
"""The authors' sizes; XL's heads do not divide its width, so that its attention is a little narrower."""


class Deviation(NamedTuple):
    """A prediction."""

    values: Tensor
    """[N,C,h,w]: the predicted deviation, times the gate if there is one."""
    gate_logits: Tensor | None
    """[N,C,h,w]: logits of the gate; None without gates in use."""


class DeviationUNet(nn.Module):
    """Latents [N,C,h,w], timesteps and classes, both int64 [N] -> `Deviation`.

    diffusers' ``UNet2DConditionModel`` with the class as the only token of its cross attention. The gates
    work on its skip connections and its last features, so its forward pass is written out here.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: Size,
        *,
        dropout: float = 0.0,
        gates: Literal["paper", "identity"] | None = None,
    ) -> None:
        """A new network with the authors' initial weights: blocks add nothing and the deviation is zero.

        Args:
            channels: of the latents.
            classes: number of classes.
            size: widths and heads.
            dropout: in the residual blocks.
            gates: how gates are initialized; None for none.

        Raises:
            ConfigError: diffusers is not installed.
        """
        super().__init__()
        try:
            from diffusers import UNet2DConditionModel
        except ImportError:
            raise ConfigError("method.name: deco-diff needs diffusers; install `idif[diffusion]`") from None
        self.net: Any = UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * len(LEVELS),
            up_block_types=("CrossAttnUpBlock2D",) * len(LEVELS),
            block_out_channels=size.level_widths,
            layers_per_block=BLOCKS,
            norm_num_groups=GROUPS,
            cross_attention_dim=size.context,
            attention_head_dim=size.level_heads,  # diffusers means the number of heads
            dropout=dropout,
        )
        self.classes = nn.Embedding(classes, size.context)
        _zero_last_layers(self.net)
        self.gate_head: nn.Sequential | None = None
        self.skip_gates: nn.ModuleList | None = None
        if gates is not None:
            self.gate_head, self.skip_gates = make_gates(size, channels, gates)

    def forward(self, latents: Tensor, timesteps: Tensor, classes: Tensor, gated: bool = True) -> Deviation:
        """The deviation of each latent; ``gated``: whether the gates are used, if there are any."""
        net = self.net
        time = net.time_embedding(net.time_proj(timesteps).to(latents.dtype))
        context = self.classes(classes)[:, None]
        x = net.conv_in(latents)
        skips = [x]
        for block in net.down_blocks:
            x, states = block(hidden_states=x, temb=time, encoder_hidden_states=context)
            skips.extend(states)
        x = net.mid_block(x, time, encoder_hidden_states=context)
        if self.skip_gates is not None and gated:
            # a closed gate (1) keeps a skip connection from copying a defect
            skips = [(1 - gate(s).sigmoid()) * s for gate, s in zip(self.skip_gates, skips, strict=True)]
        for block in net.up_blocks:
            count = len(block.resnets)
            states, skips = tuple(skips[-count:]), skips[:-count]
            x = block(
                hidden_states=x, temb=time, res_hidden_states_tuple=states, encoder_hidden_states=context
            )
        values = net.conv_out(net.conv_act(net.conv_norm_out(x)))
        if self.gate_head is None or not gated:
            return Deviation(values, None)
        logits: Tensor = self.gate_head(x)
        return Deviation(logits.sigmoid() * values, logits)


def make_gates(
    size: Size, channels: int, init: Literal["paper", "identity"]
) -> tuple[nn.Sequential, nn.ModuleList]:
    """The gate on the last features and those on the skip connections, in the order in which these arise.

    Args:
        size: widths of the network.
        channels: of the latents.
        init: ``identity``: open gates.
    """
    head = nn.Sequential(
        nn.GroupNorm(GROUPS, size.width), nn.SiLU(), nn.Conv2d(size.width, channels, 3, padding=1)
    )
    skips = nn.ModuleList(nn.Conv2d(width, width, 1) for width in skip_widths(size.level_widths))
    if init == "identity":
        _fill(head[2], OPEN)
        for gate in skips:
            _fill(gate, -OPEN)
    return head, skips


def skip_widths(widths: Sequence[int]) -> list[int]:
    """Channels of the skip connections, in the order in which they arise: the first convolution, then each
    level's blocks and, but for the last, its halving."""
    skips = [widths[0]]
    for level, width in enumerate(widths):
        last = level == len(widths) - 1
        skips += [width] * (BLOCKS if last else BLOCKS + 1)
    return skips


def _zero_last_layers(net: nn.Module) -> None:
    """Zero the last layer of every residual block and transformer, and of the network."""
    for name, module in net.named_modules():
        if name.rpartition(".")[2] in ("conv2", "proj_out", "conv_out"):
            _fill(module, 0.0)


def _fill(layer: Any, bias: float) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, bias)
