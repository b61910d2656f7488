"""A reference of the authors' network and sampler, written from the definition with their names of parts."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS, BLOCKS, GROUPS = (1, 2, 4), 2, 32


class Residual(nn.Module):
    def __init__(self, inputs: int, time: int, outputs: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs),
            nn.SiLU(),
            nn.Dropout(0.4),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        result: Tensor = self.skip_connection(x) + self.out_layers(h)
        return result


class Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        def heads(values: Tensor) -> Tensor:
            return torch.unflatten(values, 2, (self.heads, -1)).transpose(1, 2)

        q, k, v = heads(self.to_q(x)), heads(self.to_k(context)), heads(self.to_v(context))
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        result: Tensor = self.to_out((weights @ v).transpose(1, 2).flatten(2))
        return result


class GatedLinear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, dim=-1)
        result: Tensor = values * F.gelu(gate)
        return result


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedLinear(width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Block(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width, heads), Attention(width, context, heads)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        result: Tensor = x + self.ff(self.norm3(x))
        return result


class Transformer(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([Block(width, context, heads)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = self.transformer_blocks[0](h.flatten(2).transpose(1, 2), context)
        result: Tensor = x + self.proj_out(torch.unflatten(tokens.transpose(1, 2), 2, x.shape[2:]))
        return result


class Halve(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


class Double(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return result


class First(nn.Conv2d):
    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return super().forward(x)


class SkipGate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(width, width, 1)

    def forward(self, skip: Tensor) -> Tensor:
        result: Tensor = (1 - torch.sigmoid(self.gate_conv(skip))) * skip
        return result


class Classes(nn.Module):
    def __init__(self, context: int, count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, context)


class AuthorsUNet(nn.Module):
    """Latents [N,C,h,w], timesteps and classes [N] -> (deviation, gate or None)."""

    def __init__(
        self, channels: int, width: int, heads: int, context: int, classes: int, gated: bool = False
    ) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.cond_stage_model = Classes(context, classes)
        self.time_embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        of_each = width // heads
        blocks: list[nn.ModuleList] = [nn.ModuleList([First(channels, width, 3, padding=1)])]
        skips, now = [width], width
        for level, multiple in enumerate(LEVELS):
            for _ in range(BLOCKS):
                residual, now = Residual(now, time, multiple * width), multiple * width
                blocks.append(nn.ModuleList([residual, Transformer(now, context, now // of_each)]))
                skips.append(now)
            if level < len(LEVELS) - 1:
                blocks.append(nn.ModuleList([Halve(now)]))
                skips.append(now)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.ModuleList(
            [Residual(now, time, now), Transformer(now, context, now // of_each), Residual(now, time, now)]
        )
        if gated:
            self.skip_gates = nn.ModuleList(SkipGate(skip) for skip in skips)
        up: list[nn.ModuleList] = []
        for level, multiple in reversed(list(enumerate(LEVELS))):
            for block in range(BLOCKS + 1):
                parts: list[nn.Module] = [Residual(now + skips.pop(), time, multiple * width)]
                now = multiple * width
                parts.append(Transformer(now, context, now // of_each))
                if level and block == BLOCKS:
                    parts.append(Double(now))
                up.append(nn.ModuleList(parts))
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
        )
        if gated:
            self.gate_head = nn.Sequential(
                nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid()
            )

    def forward(self, x: Tensor, timesteps: Tensor, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = timesteps[:, None].float() * frequencies
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        context = self.cond_stage_model.embedding(classes)[:, None]

        def run(parts: Any, h: Tensor) -> Tensor:
            for part in parts:
                h = part(h, time, context)
            return h

        skips = []
        for block in self.input_blocks:
            x = run(block, x)
            skips.append(x)
        x = run(self.middle_block, x)
        gated = hasattr(self, "gate_head")
        for block in self.output_blocks:
            skip = skips.pop()
            if gated:
                skip = self.skip_gates[len(skips)](skip)
            x = run(block, torch.cat([x, skip], dim=1))
        values: Tensor = self.out(x)
        if not gated:
            return values, None
        gate: Tensor = self.gate_head(x)
        return gate * values, gate


def authors_sampler(net: AuthorsUNet, latents: Tensor, classes: Tensor, timesteps: list[int]) -> Tensor:
    """Their loop: the predicted normal latent, then the next level's share of the deviation on top of it."""
    cosine = [math.cos((n / 10 + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(11)]
    betas = [min(1 - after / before, 0.999) for before, after in pairwise(cosine)]
    kept = [math.prod(1 - beta for beta in betas[: n + 1]) for n in range(10)]
    x = latents
    for place, now in enumerate(timesteps):
        predicted, _ = net(x, torch.full((len(x),), now), classes)
        normal = x - math.sqrt(1 - kept[now]) * predicted
        last = place == len(timesteps) - 1
        x = normal if last else normal + math.sqrt(1 - kept[timesteps[place + 1]]) * predicted
    return x
