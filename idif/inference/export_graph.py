"""Self-contained graph of a trained method: from images to maps and scores, independent of this project."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

import torch
from torch import Tensor, nn

from idif.data.features import IMAGES, MASKS, FeatureSpec
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder
from idif.encoders.preparation import SquareImage
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer, reduce_maps
from idif.inference.predict import Thresholds, image_batch
from idif.methods.protocol import SupportsExport
from idif.metrics.sample import sample_scores
from idif.version import __version__

INPUTS = ("images", "view_mask")
OUTPUTS = ("maps", "view_scores", "sample_scores")


@dataclass(frozen=True)
class Deployment:
    """A trained method with encoders, thresholds and metadata, ready for export."""

    category: str
    scorer: Scorer
    """Scorer with a method in eval mode on the CPU."""
    encoders: EncoderSet
    features: FeatureSpec
    view_numbers: tuple[int, ...]
    camera_names: tuple[str, ...]
    """One for each slot."""
    limits: Thresholds
    caveats: tuple[str, ...]
    """Caveats for users of the results, from the run's ``environment.json``."""

    def graph(self) -> "Graph":
        """The deployment as one module, on the CPU and in eval mode.

        Raises:
            ConfigError: the method, its encoders or its scoring rule cannot be exported.
        """
        require_exportable(self.scorer, self.encoders)
        method = self.scorer.method.eval()
        assert isinstance(method, SupportsExport)
        (encoder,) = self.encoders.encoders
        graph = Graph(encoder, method.export_module(), self.scorer)
        return graph.eval().requires_grad_(False)

    @torch.inference_mode()
    def maps(self, images: Tensor, view_mask: Tensor) -> Tensor:
        """The maps of `idif predict`, in the form of `Graph.forward`'s."""
        arrays = {IMAGES: images, MASKS: images[:, :, 0] > 255}
        batch = image_batch(self.encoders, arrays, view_mask, [self.category] * len(images))
        return self.scorer.method.score(batch).maps["map"]

    def example(self, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Random images and view masks as example inputs; if possible, every view is missing once."""
        generator = torch.Generator().manual_seed(seed)
        size, views = self.features.image_size, len(self.view_numbers)
        assert size is not None, "only methods of images are exported"
        images = torch.randint(0, 256, (samples, views, 3, size, size), generator=generator).byte()
        mask = torch.ones(samples, views, dtype=torch.bool)
        if views > 1:
            for sample in range(1, samples):
                mask[sample, sample % views] = False
        return images, mask

    def facts(self) -> dict[str, str]:
        """Metadata of the file: name -> JSON text."""
        settings, calibration = self.scorer.config, self.scorer.calibration
        (encoder,) = self.features.encoders
        facts = {
            "category": self.category,
            "views": self.view_numbers,
            "cameras": self.camera_names,
            "image_size": self.features.image_size,
            "resize": encoder.preparation["resize"],
            "crop_from": self.encoders.image_reader.crop_from,
            "thresholds": {"sample": self.limits.part, "view": self.limits.view},
            "view_score": {
                "rule": settings.score,
                "top_k": settings.top_k,
                "top_share": settings.top_share,
            },
            "sample_score": settings.sample_score,
            "calibration": None if calibration is None else asdict(calibration),
            "teacher": {"encoder": encoder.name, "weights_sha256": encoder.weights_sha256},
            "caveats": self.caveats,
            "versions": {"idif": __version__, "torch": torch.__version__},
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def require_exportable(scorer: Scorer, encoders: EncoderSet) -> None:
    """Refuse methods and encoders that cannot be exported as one graph.

    Raises:
        ConfigError: gives the reason.
    """
    if not isinstance(scorer.method, SupportsExport):
        raise ConfigError("method.name: this method cannot be exported as one graph; use `idif predict`")
    if len(encoders.encoders) != 1 or not isinstance(encoders.encoders[0].family.read, SquareImage):
        raise ConfigError("teacher.encoder: only one encoder of square images can be exported")


class Graph(nn.Module):
    """(images, view_mask) -> (maps, view_scores, sample_scores); `forward` gives the shapes."""

    mean: Tensor | None
    spread: Tensor | None

    def __init__(self, encoder: FrozenEncoder, method: nn.Module, scorer: Scorer) -> None:
        super().__init__()
        calibration = scorer.calibration
        self.teacher, self.method, self.prepare = encoder.module.cpu().eval(), method, encoder.family.prepare
        self.reduce = partial(reduce_maps, scorer.config, scorer.method)
        self.sample_score = scorer.config.sample_score
        mean = None if calibration is None else torch.tensor(calibration.mean)
        spread = None if calibration is None else torch.tensor(calibration.spread)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, images: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score whole samples.

        Args:
            images: uint8 [B,V,3,S,S], RGB, resized to the run's size; missing views may have any content.
            view_mask: bool [B,V], true where a view is present.

        Returns:
            maps float32 [B,V,S,S], zero on missing views; view_scores float32 [B,V], NaN on missing views;
            sample_scores float32 [B], NaN for a sample without any view.
        """
        seen = torch.where(view_mask[:, :, None, None, None], images.float() / 255, 0.0)
        features = {
            name: x.unflatten(0, (-1, images.shape[1]))
            for name, x in self.teacher(self.prepare(seen.flatten(0, 1))).items()
        }
        maps = self.method(seen, features, view_mask)
        of_views = self.reduce(maps)
        if self.mean is not None and self.spread is not None:
            of_views = (of_views - self.mean) / self.spread
        of_samples = sample_scores(of_views, view_mask, self.sample_score)
        return maps, of_views.masked_fill(~view_mask, torch.nan), of_samples
