"""UniAD against definitions written with torch.nn.functional alone, and the counts of its authors' model."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idif.config.sections import Config
from idif.data.arrays import ArraySpec, feature_map
from idif.data.features import EncoderSpec, FeatureSpec
from idif.errors import ConfigError, IdifError, StoreMismatch
from idif.methods.protocol import MethodContext
from idif.methods.uniad.config import JitterConfig, NeighborMaskConfig, UniADConfig
from idif.methods.uniad.layers import Attention, DecoderLayer
from idif.methods.uniad.model import UniAD, anomaly_maps, jitter
from idif.methods.uniad.neighbor_mask import neighbors
from idif.methods.uniad.position import LearnedPosition, SinePosition
from idif.methods.uniad.spec import UNIAD_SPEC

GRID = (14, 14)


def features_of(array: ArraySpec, size: int | None = 224) -> FeatureSpec:
    encoder = EncoderSpec("any", "untrained", "0", "image", {}, (array,))
    return FeatureSpec((encoder,), size, "float16", stores_images=False)


def test_the_default_has_as_many_parameters_as_the_authors_model() -> None:
    context = MethodContext(features_of(feature_map("aligned", 272, 14, "any")), (1,))
    method = UNIAD_SPEC.build(UniADConfig(), context)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == 7_717_392
    assert not dict(method.named_buffers(remove_duplicate=False)).keys() & method.state_dict().keys()


def test_the_defaults_of_other_sections_are_the_authors() -> None:
    config = Config.model_validate({"method": {"name": "uniad"}})
    train = config.train
    assert (train.mode, train.epochs, train.batch_size, train.lr) == ("unified", 1000, 8, 1e-4)
    assert (train.weight_decay, train.clip_norm, train.warmup) == (1e-4, 0.1, 0.0)
    assert (train.schedule.milestones, train.schedule.unit) == ((800,), "epoch")
    assert config.eval.score == "method"


def test_a_token_may_not_use_itself_or_its_neighbors() -> None:
    near = neighbors(GRID, (7, 7))
    for query in range(196):
        for key in range(196):
            rows, columns = abs(query // 14 - key // 14), abs(query % 14 - key % 14)
            assert bool(near[query, key]) == (rows <= 3 and columns <= 3)
    kept = (~near).sum(dim=1)
    assert (int(kept.min()), int(kept.max())) == (147, 180)
    assert near.diagonal().all()


def test_the_neighborhood_may_differ_between_rows_and_columns() -> None:
    near = neighbors((4, 5), (1, 3)).view(4, 5, 4, 5)
    assert near[2, 2].nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]


def attention_by_definition(
    queries: Tensor, source: Tensor, position: Tensor, near: Tensor, attention: Attention
) -> Tensor:
    """softmax(q k / sqrt(d) - infinity where near) v for one sample [N,d], head by head."""
    layer = attention.heads
    w_q, w_k, w_v = layer.in_proj_weight.chunk(3)
    b_q, b_k, b_v = layer.in_proj_bias.chunk(3)
    q = F.linear(queries + position, w_q, b_q)
    k = F.linear(source + position, w_k, b_k)
    v = F.linear(source, w_v, b_v)
    found = []
    for head_q, head_k, head_v in zip(*(x.chunk(layer.num_heads, dim=1) for x in (q, k, v)), strict=True):
        logits = head_q @ head_k.T / math.sqrt(head_q.shape[1])
        found.append(logits.masked_fill(near, -math.inf).softmax(dim=1) @ head_v)
    return F.linear(torch.cat(found, dim=1), layer.out_proj.weight, layer.out_proj.bias)


def test_a_decoder_layer_by_its_definition() -> None:
    torch.manual_seed(0)
    near = neighbors((4, 4), (3, 3))
    layer = DecoderLayer(16, 8, 2, 12, dropout=0.5).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    memory, previous, position = torch.randn(2, 16, 8), torch.randn(2, 16, 8), torch.randn(16, 8)
    with torch.no_grad():
        result = layer(memory, previous, position, near, near)
        for sample in range(2):
            x: torch.Tensor = layer.queries
            sources = ((layer.to_memory, memory[sample]), (layer.to_previous, previous[sample]))
            for number, (attention, source) in enumerate(sources):
                x = x + attention_by_definition(x, source, position, near, attention)
                x = F.layer_norm(x, (8,), *affine(layer.norms[number]))
            hidden = F.relu(F.linear(x, *affine(layer.feedforward[0])))
            x = x + F.linear(hidden, *affine(layer.feedforward[3]))
            x = F.layer_norm(x, (8,), *affine(layer.norms[2]))
            torch.testing.assert_close(result[sample], x, rtol=1e-4, atol=1e-5)


def affine(module: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a layer."""
    assert isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm))
    return module.weight, module.bias


def small(**settings: object) -> UniAD:
    torch.manual_seed(0)
    config = UNIAD_SPEC.smallest().model_copy(update=settings)
    return UniAD(config, (6, 4, 4), 32).eval()


@pytest.mark.parametrize("blocked", [None, neighbors((4, 4), (3, 3))])
def test_attention_while_training_on_a_cpu_is_torchs(blocked: Tensor | None) -> None:
    attention = Attention(8, 2, dropout=0.0)
    torch.nn.init.normal_(attention.heads.in_proj_bias)
    queries, source, position = torch.randn(3, 16, 8), torch.randn(3, 16, 8), torch.randn(16, 8)
    trained = attention.train()(queries, source, position, blocked)
    keys = source + position
    expected, _ = attention.heads(queries + position, keys, source, attn_mask=blocked, need_weights=False)
    assert torch.allclose(trained, expected, atol=1e-6)


def test_the_first_decoder_layer_looks_at_the_memory_twice_and_later_ones_at_the_layer_before() -> None:
    model, seen = small(), []
    for layer in model.decoder:
        layer.register_forward_pre_hook(lambda module, given: seen.append(given[:2]))
    with torch.no_grad():
        model.reconstruct_views(torch.randn(1, 6, 4, 4))
    (memory, first), (again, second) = seen
    assert first is memory
    assert again is memory
    assert second is not memory


@pytest.mark.parametrize("site", ["encoder", "queries", "outputs"])
def test_each_mask_can_be_left_out_and_matters(site: str) -> None:
    features = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        masked = small(neighbor_mask=NeighborMaskConfig(size=(3, 3))).reconstruct_views(features)
        open_site = NeighborMaskConfig.model_validate({"size": (3, 3), site: False})
        assert not torch.allclose(
            small(neighbor_mask=open_site).reconstruct_views(features), masked, atol=1e-4
        )


def test_noise_is_in_proportion_to_a_tokens_length_and_leaves_the_target_alone() -> None:
    torch.manual_seed(0)
    features = torch.randn(64, 8, 5, 5) * torch.linspace(0.1, 4, 25).view(5, 5)
    clean = features.clone()
    seeds, generator = torch.arange(64), torch.Generator().manual_seed(0)
    noisy = jitter(features, seeds, generator, JitterConfig())
    assert torch.equal(features, clean)
    expected = 20 * torch.linalg.vector_norm(features, dim=1, keepdim=True) / 8
    standard = (noisy - features) / expected
    assert abs(float(standard.mean())) < 0.03
    assert abs(float(standard.std()) - 1) < 0.03
    half = jitter(features, seeds, generator, JitterConfig(probability=0.5))
    changed = (half != features).flatten(1).any(dim=1)
    assert 16 < int(changed.sum()) < 48
    assert torch.equal(jitter(features, seeds, generator, JitterConfig(scale=0)), features)


def test_maps_are_token_distances_upsampled_corner_on_corner() -> None:
    features, rebuilt = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    rebuilt[0, :, 0, 0] = torch.tensor([3.0, 0.0, 4.0])
    maps = anomaly_maps(features, rebuilt, 4)
    ramp = torch.tensor([1, 2 / 3, 1 / 3, 0])
    torch.testing.assert_close(maps[0], 5 * ramp[:, None] * ramp)


@pytest.mark.parametrize("rule", ["pooled-max", "mean", "std"])
def test_view_scores_by_their_definition(rule: str) -> None:
    model = small(view_score=rule, pool=5)
    maps = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    windows = maps.unfold(2, 5, 1).unfold(3, 5, 1).mean(dim=(-1, -2))
    wanted = {
        "pooled-max": windows.amax(dim=(2, 3)),
        "mean": maps.flatten(2).mean(dim=2),
        "std": (maps.flatten(2) - maps.flatten(2).mean(2, keepdim=True)).square().mean(2).sqrt(),
    }
    torch.testing.assert_close(model.reduce_maps(maps), wanted[rule])


def test_position_codes() -> None:
    learned = LearnedPosition((2, 3), 4)
    code = learned().view(2, 3, 4)
    torch.testing.assert_close(code[1, 2], torch.cat([learned.columns[2], learned.rows[1]]))
    sine = SinePosition((2, 3), 8)().view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            angles = [(row + 1) / 2 * 2 * math.pi, (column + 1) / 3 * 2 * math.pi]
            wanted = [
                wave(angle / 10_000 ** (pair / 2))
                for angle in angles
                for pair in range(2)
                for wave in (math.sin, math.cos)
            ]
            torch.testing.assert_close(sine[row, column], torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_bfloat16_training_is_finite() -> None:
    model = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rebuilt = model.reconstruct_views(torch.randn(2, 6, 4, 4))
    assert torch.isfinite(rebuilt).all()


@pytest.mark.parametrize(
    ("features", "settings", "error", "words"),
    [
        (features_of(feature_map("layer1", 8, 14, "any")), {}, StoreMismatch, "aligned"),
        (features_of(feature_map("aligned", 8, 14, "any"), 230), {}, ConfigError, "14x14 grid"),
        (features_of(feature_map("aligned", 8, 4, "any"), 64), {}, ConfigError, "4x4 tokens"),
        (
            features_of(feature_map("aligned", 8, 8, "any"), 8),
            {"neighbor_mask": NeighborMaskConfig(size=(1, 1))},
            ConfigError,
            "method.pool",
        ),
    ],
)
def test_features_that_do_not_fit(
    features: FeatureSpec, settings: dict[str, object], error: type[IdifError], words: str
) -> None:
    config = UniADConfig().model_copy(update=settings)
    with pytest.raises(error, match=words) as raised:
        UNIAD_SPEC.build(config, MethodContext(features, (1,)))
    assert "\n" not in str(raised.value)


def test_settings_that_do_not_fit() -> None:
    for settings, words in (
        ({"attention_heads": 7}, "does not divide"),
        ({"neighbor_mask": {"size": [6, 7]}}, "odd"),
    ):
        with pytest.raises(ValueError, match=words):
            UniADConfig.model_validate(settings)
