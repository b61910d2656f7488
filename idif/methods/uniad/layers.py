"""Encoder and decoder layers, post-norm: attention and feed-forward parts add to their input, then a norm."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.methods.dropout import Dropout


class Attention(nn.Module):
    """Multi-head attention whose position code is added to queries and keys, never to values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, source: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """Attend from ``queries`` to ``source``, both [P,N,d].

        Args:
            position: [N,d].
            blocked: bool [N,N], the keys that each query must not use; None for no mask.

        Returns:
            [P,N,d].
        """
        inputs = (queries + position, source + position, source)
        if self.training and inputs[0].device.type == "cpu":
            return self._attend_on_cpu(*inputs, blocked)
        attended: Tensor
        attended, _ = self.heads(*inputs, attn_mask=blocked, need_weights=False)
        return attended

    def _attend_on_cpu(self, queries: Tensor, keys: Tensor, values: Tensor, blocked: Tensor | None) -> Tensor:
        """The same with dropout, in two thirds of the time: torch's draws random bits slowly on a CPU."""
        count, heads = len(queries), self.heads.num_heads
        weights, biases = self.heads.in_proj_weight.chunk(3), self.heads.in_proj_bias.chunk(3)
        query, key, value = (
            torch.unflatten(F.linear(x, weight, bias), 2, (heads, -1)).transpose(1, 2).flatten(0, 1)
            for x, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
        )
        bias = query.new_zeros(query.shape[1], key.shape[1])
        if blocked is not None:
            bias.masked_fill_(blocked, -math.inf)
        attention = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=query.shape[2] ** -0.5).softmax(2)
        mixed = torch.unflatten(self.dropout(attention) @ value, 0, (count, heads)).transpose(1, 2).flatten(2)
        projected: Tensor = self.heads.out_proj(mixed)
        return projected


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention of the tokens, then a feed-forward part."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.feedforward = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """[P,N,d] -> [P,N,d]; arguments as `Attention.forward`."""
        attended = self.attention(tokens, tokens, position, blocked)
        tokens = self.norms[0](tokens + self.dropout(attended))
        changed: Tensor = self.norms[1](tokens + self.dropout(self.feedforward(tokens)))
        return changed


class DecoderLayer(nn.Module):
    """A learned table of queries looks at the encoder's memory, then at the previous layer's output."""

    def __init__(self, tokens: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width))
        self.to_memory = Attention(width, heads, dropout)
        self.to_previous = Attention(width, heads, dropout)
        self.feedforward = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(
        self,
        memory: Tensor,
        previous: Tensor,
        position: Tensor,
        blocked_memory: Tensor | None,
        blocked_previous: Tensor | None,
    ) -> Tensor:
        """The layer's output [P,N,d].

        Args:
            memory: the encoder's output [P,N,d].
            previous: the previous decoder layer's output [P,N,d]; ``memory`` for the first layer.
            position: [N,d].
            blocked_memory: bool [N,N] or None, as `Attention.forward`'s; likewise ``blocked_previous``.
        """
        # len() would fix the traced batch in a TorchScript file
        tokens = self.queries.expand(memory.shape[0], -1, -1)
        attended = self.to_memory(tokens, memory, position, blocked_memory)
        tokens = self.norms[0](tokens + self.dropout(attended))
        attended = self.to_previous(tokens, previous, position, blocked_previous)
        tokens = self.norms[1](tokens + self.dropout(attended))
        changed: Tensor = self.norms[2](tokens + self.dropout(self.feedforward(tokens)))
        return changed
