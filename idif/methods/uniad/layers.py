"""Encoder and decoder layers, post-norm: attention and feed-forward parts add to their input, then a norm."""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose position code is added to queries and keys, never to values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, queries: Tensor, source: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """Attend from ``queries`` to ``source``, both [P,N,d].

        Args:
            position: [N,d].
            blocked: bool [N,N], the keys that each query must not use; None for no mask.

        Returns:
            [P,N,d].
        """
        attended: Tensor
        attended, _ = self.heads(
            queries + position, source + position, source, attn_mask=blocked, need_weights=False
        )
        return attended


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention of the tokens, then a feed-forward part."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.feedforward = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

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
        self.dropout = nn.Dropout(dropout)

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
        tokens = self.queries.expand(len(memory), -1, -1)
        attended = self.to_memory(tokens, memory, position, blocked_memory)
        tokens = self.norms[0](tokens + self.dropout(attended))
        attended = self.to_previous(tokens, previous, position, blocked_previous)
        tokens = self.norms[1](tokens + self.dropout(attended))
        changed: Tensor = self.norms[2](tokens + self.dropout(self.feedforward(tokens)))
        return changed
