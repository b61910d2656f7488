"""UniAD put together: features in, reconstructed features out; their distance is the anomaly map."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.methods.maps import MAP
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.methods.section import ViewDropoutConfig
from idif.methods.uniad.config import JitterConfig, UniADConfig
from idif.methods.uniad.layers import DecoderLayer, EncoderLayer
from idif.methods.uniad.neighbor_mask import neighbors
from idif.methods.uniad.position import LearnedPosition, SinePosition
from idif.methods.view_dropout import drop_views
from idif.methods.view_mean import mean_over_kept
from idif.randomness import Draws, stream, uniform

ALIGNED = "aligned"
"""Name of the array that the method reads: the taps of an encoder on one grid, [V,C,h,w]."""


class UniAD(TrainedMethod):
    """Reconstructs the aligned features of each view, independent of all other views.

    Shapes are in `idif.data.batch`'s legend; P is the number of present views of a batch, N = h * w.
    """

    near: Tensor
    independent_views = True

    def __init__(
        self,
        config: UniADConfig,
        shape: tuple[int, int, int],
        image_size: int,
        view_dropout: ViewDropoutConfig | None = None,
    ) -> None:
        """A new model.

        Args:
            config: settings.
            shape: (C, h, w) of the array `ALIGNED`.
            image_size: side of the anomaly maps.
            view_dropout: views left out while training.

        Raises:
            ConfigError: the neighbor mask leaves a token without keys.
        """
        super().__init__()
        self.config, self.grid, self.image_size = config, shape[1:], image_size
        self.view_dropout = view_dropout or ViewDropoutConfig()
        self.needs = Needs(training=(ALIGNED,), scoring=(ALIGNED,))
        width, tokens = config.width, shape[1] * shape[2]
        sizes = (width, config.attention_heads, config.feedforward, config.dropout)
        self.project_in = nn.Linear(shape[0], width)
        self.position = (LearnedPosition if config.position == "learned" else SinePosition)(self.grid, width)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(tokens, *sizes) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, shape[0])
        near = neighbors(self.grid, config.neighbor_mask.size) if config.neighbor_mask.used else None
        self.register_buffer("near", near, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Weights of linear layers by ``initializer``, their biases zero."""
        fills: dict[str, Callable[[Tensor], Tensor]] = {
            "xavier-uniform": nn.init.xavier_uniform_,
            "xavier-normal": nn.init.xavier_normal_,
            "kaiming-uniform": lambda weight: nn.init.kaiming_uniform_(weight, a=1),
            "kaiming-normal": lambda weight: nn.init.kaiming_normal_(weight, a=1),
            "normal": lambda weight: nn.init.normal_(weight, std=0.01),
        }
        fill = fills[self.config.initializer]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fill(module.weight)
                nn.init.zeros_(module.bias)

    def reconstruct_views(self, features: Tensor) -> Tensor:
        """Reconstruction [P,C,h,w] of features float32 [P,C,h,w]."""
        mask, position = self.config.neighbor_mask, self.position()
        tokens = self.project_in(features.flatten(2).transpose(1, 2))
        for layer in self.encoder:
            tokens = layer(tokens, position, self.near if mask.encoder else None)
        memory, blocked = tokens, (self.near if mask.queries else None, self.near if mask.outputs else None)
        for layer in self.decoder:
            tokens = layer(memory, tokens, position, *blocked)
        rebuilt: Tensor = self.project_out(self.norm(tokens))
        return torch.unflatten(rebuilt.transpose(1, 2), 2, self.grid)

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`: from noisy features the model reconstructs the clean ones."""
        seeds, dropout = draws.view_seeds(), self.view_dropout
        view_mask = drop_views(batch.view_mask, seeds, dropout.probability, dropout.per)
        features = batch.arrays[ALIGNED][view_mask].float()
        noisy = jitter(features, seeds[view_mask], draws.generator("uniad jitter"), self.config.jitter)
        # dropout uses torch's global generator: seeded at each step, so that a resumed run repeats it
        draws.seed_torch()
        rebuilt = self.reconstruct_views(noisy).float()
        errors = features.new_zeros(view_mask.shape)
        errors[view_mask] = (rebuilt - features).square().mean(dim=(1, 2, 3))
        return {"loss": mean_over_kept(errors, view_mask)}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`: length of the difference between features and reconstruction, upsampled."""
        view_mask = batch.view_mask
        features = batch.arrays[ALIGNED][view_mask].float()
        maps = features.new_zeros(*view_mask.shape, self.image_size, self.image_size)
        if len(features):
            maps[view_mask] = anomaly_maps(features, self.reconstruct_views(features), self.image_size)
        return Scores(maps={MAP: maps})

    rebuilt = (ALIGNED,)

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """See `Reconstructs`."""
        features = batch.arrays[ALIGNED].float()
        rebuilt = torch.zeros_like(features)
        if batch.view_mask.any():
            rebuilt[batch.view_mask] = self.reconstruct_views(features[batch.view_mask])
        return {ALIGNED: rebuilt}

    @property
    def predicted_arrays(self) -> tuple[str, ...]:
        """See `PredictsFeatures`."""
        return (ALIGNED,)

    def feature_distance(self, batch: Batch, constant: Mapping[str, Tensor] | None = None) -> Tensor:
        """See `PredictsFeatures`: mean squared difference."""
        predicted = self.reconstruct(batch)[ALIGNED] if constant is None else constant[ALIGNED]
        return (predicted - batch.arrays[ALIGNED].float()).square().mean(dim=(2, 3, 4))

    def reduce_maps(self, maps: Tensor) -> Tensor:
        """See `ReducesMaps`."""
        rule = self.config.view_score
        if rule == "mean":
            return maps.mean(dim=(-2, -1))
        if rule == "std":
            return maps.std(dim=(-2, -1), correction=0)
        pooled = F.avg_pool2d(maps.flatten(0, 1)[:, None], self.config.pool, stride=1)
        return pooled.amax(dim=(1, 2, 3)).view(maps.shape[:2])

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        rule = {
            "pooled-max": f"maximum of averages over {self.config.pool}x{self.config.pool} pixels",
            "mean": "mean of the map",
            "std": "standard deviation of the map",
        }[self.config.view_score]
        return {
            "head": "uniad",
            "map": "length of the difference between features and their reconstruction, upsampled bilinearly",
            "method_view_score": rule,
        }

    def export_module(self) -> nn.Module:
        """See `SupportsExport`."""
        return ExportUniAD(self)


class ExportUniAD(nn.Module):
    """The maps of a `UniAD` in eval mode, with absent views reconstructed too and then zeroed."""

    def __init__(self, model: UniAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Maps float32 [B,V,H,W]; ``images`` [B,V,3,H,W] are not read."""
        flat = features[ALIGNED].flatten(0, 1)
        maps = anomaly_maps(flat, self.model.reconstruct_views(flat), self.model.image_size)
        shown = torch.unflatten(maps, 0, (-1, view_mask.shape[1]))
        return shown.masked_fill(~view_mask[:, :, None, None], 0.0)


def jitter(features: Tensor, seeds: Tensor, generator: torch.Generator, config: JitterConfig) -> Tensor:
    """Features [P,C,h,w] with normal noise, per token in proportion to its length.

    Args:
        features: clean.
        seeds: int64 [P], one for each view; they decide which views get noise.
        generator: draws the noise, on the features' device.
        config: scale and probability.
    """
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    noise = torch.randn(features.shape, generator=generator, device=features.device)
    chosen = uniform(seeds, stream("uniad jitter"), 1)[:, 0] < config.probability
    spread = config.scale * length / features.shape[1] * chosen[:, None, None, None]
    noisy: Tensor = features + spread * noise
    return noisy


def anomaly_maps(features: Tensor, rebuilt: Tensor, size: int) -> Tensor:
    """Maps float32 [P,size,size] from features and their reconstruction, both [P,C,h,w]."""
    distance = torch.linalg.vector_norm(rebuilt - features, dim=1, keepdim=True)
    return F.interpolate(distance, size=(size, size), mode="bilinear", align_corners=True)[:, 0]
