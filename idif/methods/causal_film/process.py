"""The process: projections of video and sound, and the transformer that predicts the result from them."""

import torch
from torch import Tensor, nn

from idif.methods.causal_film.config import CausalFiLMConfig


class Projector(nn.Sequential):
    """Features of an encoder -> tokens of the common width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))


class ProcessEncoder(nn.Module):
    """Video tokens that attend to sound tokens -> one vector of each sample.

    Without video the sound asks itself, without sound the video does. Without both, a single zero token takes
    their place, which is the sensors' shift after FiLM.
    """

    def __init__(self, config: CausalFiLMConfig) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(
            config.width, config.attention_heads, config.feedforward, config.dropout, batch_first=True
        )
        self.layers = nn.TransformerDecoder(layer, config.layers)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, video: Tensor, audio: Tensor, shift: Tensor, present: tuple[Tensor, Tensor]) -> Tensor:
        """Vectors [B,D].

        Args:
            video: modulated tokens [B,T,D].
            audio: modulated tokens [B,T',D].
            shift: the sensors' shift [B,D].
            present: presence of video and of sound, both bool [B].
        """
        seen, heard = present
        # every parameter is part of every step, also where no sample of a batch has the input
        vectors = 0 * (video.mean(dim=1) + audio.mean(dim=1))
        lone = shift[:, None]
        choices = (
            (seen & heard, video, audio),
            (seen & ~heard, video, video),
            (~seen & heard, audio, audio),
            (~seen & ~heard, lone, lone),
        )
        # samples that lack the same inputs are computed together: no padding, nothing to mask
        for chosen, asking, asked in choices:
            rows = chosen.nonzero()[:, 0]
            if len(rows):
                tokens = self.layers(asking[rows], asked[rows])
                pooled = self.norm(tokens.mean(dim=1))
                vectors = vectors.index_copy(0, rows, pooled.to(vectors.dtype))
        return vectors


class Decoder(nn.Sequential):
    """Anti-generalization decoder: the process vector -> the predicted result [B,D]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )


def drop_values(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features with a random ``share`` of all values zero and the others scaled up to keep the mean."""
    if share == 0:
        return features
    chance = torch.rand(features.shape, generator=generator, device=features.device)
    return features * (chance >= share) / (1 - share)
