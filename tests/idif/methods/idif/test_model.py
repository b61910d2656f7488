"""Every part of IDIF does what the paper says; each test fails if its part is faked."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from idif.encoders.preparation import normalize
from idif.methods.idif.bottleneck import ConsistencyBottleneck
from idif.methods.idif.config import IDIFConfig, VoxelConfig
from idif.methods.idif.decoder import ViewDecoders
from idif.methods.idif.feature_distance import combine_maps, cosine_distance, distillation_loss
from idif.methods.idif.layers import LayerSpec
from idif.methods.idif.model import IDIF
from idif.methods.idif.view_transform import ViewTransform, default_rig, rotation_matrices
from idif.methods.idif.voxel import Attention, VoxelConstruction, position_code

LAYERS = (LayerSpec("layer1", 64, 4), LayerSpec("layer2", 128, 8), LayerSpec("layer3", 256, 16))
VIEWS = (1, 2, 3, 4, 5)
SMALL = {"voxel": VoxelConfig(depth=2, height=4, width=4, channels=32), "attention_heads": 4, "blocks": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "idif": {},
    "idif-group": {"norm": "group"},
    "narrow-latent": {"latent_channels": 16},
    "four-stages": {"encoder_stages": 4},
    "dkd": {
        "fusion": "none",
        "bottleneck": False,
        "encoder": "per-view",
        "encoder_stages": 4,
        "decoder_blocks": 2,
    },
    "dkd+3dconv": {"fusion": "conv3d", "bottleneck": False},
    "dkd+ivc": {"bottleneck": False},
}


def make(views: tuple[int, ...] = VIEWS, **changes: Any) -> IDIF:
    torch.manual_seed(0)
    return IDIF(IDIFConfig.model_validate(SMALL | changes), LAYERS, views, {})


def inputs(batch: int = 2, views: int = 5, size: int = 32) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, views, 3, size, size, generator=generator)
    features = {
        layer.name: torch.rand(batch, views, *layer.shape(size), generator=generator) for layer in LAYERS
    }
    return images, features, torch.ones(batch, views, dtype=torch.bool)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_and_scores_at_its_image_size(name: str) -> None:
    model = make(**VARIANTS[name])
    images, features, mask = inputs(size=48)
    losses = model.losses(images, features, mask)
    losses["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval()
    maps = model.anomaly_maps(model.encode(images, mask), features, mask)
    assert maps.shape == (2, 5, 48, 48)
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_a_dropped_view_has_exactly_no_influence(name: str, training: bool) -> None:
    """Value and gradient, with batch statistics too: only kept views are encoded."""
    model = make(**VARIANTS[name]).train(training)
    images, features, mask = inputs(batch=3)
    mask[0, 1] = mask[1, 4] = mask[2, 0] = False
    other = images.clone()
    other[~mask] = torch.rand_like(other[~mask]) * 5
    outputs = []
    for x in (images, other):
        x.requires_grad_(True)
        torch.manual_seed(3)
        if training:
            out = model.losses(x, features, mask)["loss"]
        else:
            out = model.anomaly_maps(model.encode(x, mask), features, mask)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert gradient[~mask].abs().max() == 0
        assert gradient[mask].abs().max() > 0
        outputs.append(out.detach())
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", VARIANTS)
def test_many_choices_of_views_give_the_maps_of_each_from_scratch(name: str) -> None:
    """To 1e-5 of maps in 0..2: sums are taken in another order, and batch norms folded into weights."""
    model = make(**VARIANTS[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    images, features, _ = inputs(batch=3)
    present = torch.ones(3, 5, dtype=torch.bool)
    present[1, 2] = present[2, 0] = False
    chosen = torch.rand(9, 3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    chosen[0] = True
    chosen[3, 1] = False  # a sample of which this choice sees nothing
    chosen &= present
    with torch.inference_mode():
        got = model.subset_maps(model.encode(images, present), features, chosen)
        assert got.shape == (int(chosen.sum()), 32, 32)
        start = 0
        for mask in chosen:
            seen = mask.any(dim=1)
            encoded = model.encode(images[seen], mask[seen])
            maps = model.anomaly_maps(encoded, {n: f[seen] for n, f in features.items()}, mask[seen])
            expected = maps[mask[seen]]
            torch.testing.assert_close(got[start : start + len(expected)], expected, rtol=0, atol=1e-5)
            start += len(expected)


@pytest.mark.parametrize("stages", [3, 4])
@pytest.mark.parametrize("size", [32, 48, 72])
def test_the_encoder_ends_at_the_stage_that_is_asked_for(stages: Literal[3, 4], size: int) -> None:
    encoder = make(encoder_stages=stages).eval().encoder
    net = resnet18(weights=None).eval()
    net.load_state_dict(
        {
            f"{name}.{key}": value
            for name, part in zip(
                ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
                encoder.trunks[0].children(),
                strict=False,
            )
            for key, value in part.state_dict().items()
        },
        strict=False,
    )
    features = create_feature_extractor(net, [f"layer{stages}"])
    images, _, mask = inputs(batch=1, size=size)
    with torch.inference_mode():
        expected = features(normalize(images[0]))[f"layer{stages}"]
        torch.testing.assert_close(encoder(images, mask)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_dropped_view_gets_no_map_and_no_loss() -> None:
    model = make().eval()
    images, features, mask = inputs()
    mask[0, 2] = False
    maps = model.anomaly_maps(model.encode(images, mask), features, mask)
    assert maps[0, 2].abs().max() == 0
    model.train()
    torch.manual_seed(0)
    before = model.losses(images, features, mask)["loss"]
    features["layer2"][0, 2] += 100
    torch.manual_seed(0)
    assert torch.equal(before, model.losses(images, features, mask)["loss"])


def test_a_sample_without_views_is_refused() -> None:
    model = make()
    images, features, mask = inputs()
    mask[1] = False
    with pytest.raises(ValueError, match="all its views dropped"):
        model.losses(images, features, mask)


def test_group_norm_makes_a_sample_independent_of_its_batch() -> None:
    model = make(norm="group").train()
    images, _, mask = inputs(batch=3)
    together = model.encoder(images, mask)
    alone = model.encoder(images[1:2], mask[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_common_and_specific_features_add_up_and_common_sees_every_kept_view() -> None:
    torch.manual_seed(0)
    bottleneck = ConsistencyBottleneck(5, 16, None, "batch").eval()
    f_e = torch.randn(2, 5, 16, 4, 4)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0, 3] = False
    out = bottleneck(f_e, mask)
    assert out.common.shape == (2, 16, 4, 4)
    whole = out.specific + out.common[:, None]
    torch.testing.assert_close(whole[mask], f_e[mask])
    assert out.specific[~mask].abs().max() == 0
    for view in range(5):
        changed = f_e.clone()
        changed[0, view] += torch.randn(16, 4, 4)
        moved = (bottleneck(changed, mask).common - out.common)[0].abs().max()
        assert (moved > 1e-4) if mask[0, view] else (moved == 0)
        assert torch.equal(bottleneck(changed, mask).common[1], out.common[1])


def test_common_is_drawn_while_training_and_the_mean_at_test() -> None:
    bottleneck = ConsistencyBottleneck(3, 8, None, "group")
    f_e, mask = torch.randn(2, 3, 8, 4, 4), torch.ones(2, 3, dtype=torch.bool)
    assert not torch.equal(bottleneck(f_e, mask).common, bottleneck(f_e, mask).common)
    bottleneck.eval()
    assert torch.equal(bottleneck(f_e, mask).common, bottleneck(f_e, mask).common)


def test_kept_views_are_rescaled() -> None:
    """Dropped views are zeros and the rest count V/kept: equal views merge alike, whatever is dropped."""
    bottleneck = ConsistencyBottleneck(4, 8, None, "group").eval()
    first = bottleneck.merge[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight.copy_(first.weight[:, :8].repeat(1, 4, 1, 1))
    f_e = torch.randn(1, 1, 8, 4, 4).expand(1, 4, 8, 4, 4)
    whole = bottleneck(f_e, torch.tensor([[True, True, True, True]])).common
    half = bottleneck(f_e, torch.tensor([[True, False, True, False]])).common
    torch.testing.assert_close(whole, half, rtol=1e-4, atol=1e-5)


def test_ib_loss_is_the_squared_error_of_kept_views_and_its_target_takes_no_gradient() -> None:
    bottleneck = ConsistencyBottleneck(3, 8, None, "group").train()
    f_e = torch.randn(2, 3, 8, 4, 4, requires_grad=True)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    torch.manual_seed(5)
    out = bottleneck(f_e, mask)
    predicted = bottleneck.reconstruct(out.common).view_as(f_e)
    expected = ((predicted - f_e) ** 2)[mask].mean()
    torch.testing.assert_close(out.losses["ib"], expected)
    (through,) = torch.autograd.grad(out.losses["ib"], f_e, retain_graph=True)
    with torch.no_grad():
        assert bottleneck.mean.bias is not None
        for layer in (bottleneck.mean, bottleneck.logvar):
            layer.weight.zero_()
    torch.manual_seed(5)
    (cut,) = torch.autograd.grad(bottleneck(f_e, mask).losses["ib"], f_e)
    assert through.abs().max() > 0
    assert cut.abs().max() == 0


def test_ib_loss_falls_when_the_common_feature_carries_the_views() -> None:
    """Views that share their content become predictable; with the common feature cut they do not."""
    final = {}
    for cut in (False, True):
        torch.manual_seed(0)
        bottleneck = ConsistencyBottleneck(3, 16, None, "group").train()
        optimizer = torch.optim.Adam(bottleneck.parameters(), lr=1e-2)
        if cut:
            bottleneck.lift.register_forward_hook(lambda _module, _input, output: output * 0)
        mask = torch.ones(8, 3, dtype=torch.bool)
        for _ in range(300):
            shared = torch.randn(8, 1, 16, 2, 2)
            loss = bottleneck(shared.expand(8, 3, 16, 2, 2), mask).losses["ib"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        final[cut] = float(loss.detach())
    assert final[False] < 0.7
    assert final[True] > 0.9


def test_kl_is_that_of_a_gaussian_to_the_standard_one() -> None:
    bottleneck = ConsistencyBottleneck(2, 4, None, "group").train()
    with torch.no_grad():
        for layer, value in ((bottleneck.mean, 0.3), (bottleneck.logvar, math.log(0.25))):
            layer.weight.zero_()
            assert layer.bias is not None
            layer.bias.fill_(value)
    kl = bottleneck(torch.randn(1, 2, 4, 2, 2), torch.ones(1, 2, dtype=torch.bool)).losses["kl"]
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.3, 0.5), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl, expected)


def test_nothing_reaches_the_output_but_through_bottleneck_and_voxel() -> None:
    """With both cut the maps do not depend on the corrupted image: there is no skip connection."""
    model = make().eval()
    images, features, mask = inputs()
    assert model.bottleneck is not None
    assert model.transform is not None

    def maps(x: Tensor) -> Tensor:
        return model.anomaly_maps(model.encode(x, mask), features, mask)

    assert not torch.equal(maps(images), maps(1 - images))
    hooks = [
        model.bottleneck.lift.register_forward_hook(lambda _m, _i, out: out * 0),
        model.transform.collapse.register_forward_hook(lambda _m, _i, out: out * 0),
    ]
    assert torch.equal(maps(images), maps(1 - images))
    hooks.pop().remove()
    assert not torch.equal(maps(images), maps(1 - images)), "the voxel carries nothing"
    hooks.pop().remove()


def test_attention_is_softmax_over_kept_keys_alone() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2)
    queries, tokens = torch.randn(1, 3, 8), torch.randn(1, 6, 8)
    mask = torch.tensor([[True, False, True, True, False, True]])
    got = attention(queries, tokens, tokens, mask)
    kept = tokens[:, mask[0]]
    torch.testing.assert_close(got, attention(queries, kept, kept, None))
    q, k, v = attention.query(queries), attention.key(tokens), attention.value(tokens)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4)
        heads.append(logits.masked_fill(~mask[:, None], -math.inf).softmax(-1) @ v[..., part])
    torch.testing.assert_close(got, attention.out(torch.cat(heads, -1)))


def test_voxels_know_which_view_and_where_a_feature_was() -> None:
    torch.manual_seed(0)
    voxel = VoxelConstruction(3, 8, (2, 4, 4), 16, 1, 4).eval()
    f_s = torch.randn(1, 3, 8, 4, 4)
    mask = torch.ones(1, 3, dtype=torch.bool)
    whole = voxel(f_s, mask)
    assert whole.shape == (1, 16, 2, 4, 4)
    assert not torch.allclose(whole, voxel(f_s.flip(1), mask), atol=1e-6), "views are interchangeable"
    assert not torch.allclose(whole, voxel(f_s.flip(-1), mask), atol=1e-6), "positions are interchangeable"


def test_position_code_tells_all_positions_apart_and_keeps_its_meaning_across_sizes() -> None:
    like = torch.zeros(1)
    code = position_code(16, 16, 64, like)
    distances = torch.cdist(code, code) + torch.eye(256) * 9
    assert distances.min() > 0.1
    assert position_code(3, 5, 30, like).shape == (15, 30)
    middle = position_code(3, 3, 64, like)[4]
    torch.testing.assert_close(middle, position_code(5, 5, 64, like)[12])


def test_rotations_are_rotations_and_follow_the_stated_order() -> None:
    angles = torch.tensor([[0.3, -0.7, 1.1], [0.0, 0.0, 0.0]])
    matrices = rotation_matrices(angles)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(2, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(2))
    torch.testing.assert_close(matrices[1], torch.eye(3))
    from scipy.spatial.transform import Rotation

    expected = Rotation.from_euler("ZXZ", angles[0].numpy()).as_matrix()
    np.testing.assert_allclose(matrices[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("angles", "source", "target"),
    [
        ((0, 0, 0), (4, 6, 3), (4, 6, 3)),
        # azimuth 90: the camera's x axis is the world's y axis, so what lies at +y appears at +x
        ((90, 0, 0), (4, 8, 4), (4, 4, 8)),
        ((90, 0, 0), (4, 4, 8), (4, 0, 4)),
        ((180, 0, 0), (4, 7, 5), (4, 1, 3)),
        # tilt 90: the camera looks along -y, so depth and height change places
        ((0, 90, 0), (4, 8, 4), (0, 4, 4)),
        ((0, 90, 0), (8, 4, 4), (4, 8, 4)),
    ],
)
def test_the_voxel_rotation_moves_features_the_right_way(
    angles: tuple[int, int, int], source: tuple[int, int, int], target: tuple[int, int, int]
) -> None:
    """A single voxel at (z, y, x) of a 9x9x9 grid, seen by a camera at right angles."""
    transform = ViewTransform((1,), {1: angles}, width=1, depth=9, channels=1)
    volume = torch.zeros(1, 1, 9, 9, 9)
    volume[(0, 0, *source)] = 1
    turned = transform.rotate(volume)[0, 0, 0].detach()
    assert turned[target] == pytest.approx(1, abs=1e-5)
    assert turned.sum() == pytest.approx(1, abs=1e-4)


def test_each_view_and_sample_is_rotated_on_its_own_and_angles_are_learned() -> None:
    torch.manual_seed(0)
    transform = ViewTransform((1, 2), {2: (90, 0, 0)}, width=3, depth=5, channels=4)
    volume = torch.randn(2, 3, 5, 5, 5)
    turned = transform.rotate(volume)
    torch.testing.assert_close(turned[:, 0], volume, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned[:, 1], volume.rot90(1, (3, 4)), rtol=0, atol=1e-5)
    f_p = transform(volume, (7, 7))
    assert f_p.shape == (2, 2, 4, 7, 7)
    f_p.square().sum().backward()
    assert transform.angles.grad is not None
    assert (transform.angles.grad.abs() > 0).any(dim=1).all()


def test_default_rig_looks_down_first_and_spreads_the_rest() -> None:
    assert default_rig((1,)) == {1: (0, 0, 0)}
    assert default_rig(VIEWS) == {
        1: (0, 0, 0),
        **{n: (270.0 - 90 * (n - 2), 45.0, 0.0) for n in (2, 3, 4, 5)},
    }


def test_decoders_do_not_mix_views_and_give_every_scale() -> None:
    torch.manual_seed(0)
    decoders = ViewDecoders(3, 256, LAYERS, 1, "group").eval()
    sizes = {"layer1": (8, 8), "layer2": (4, 4), "layer3": (2, 2)}
    x = torch.randn(2, 3, 256, 2, 2)
    out = decoders(x, sizes)
    assert {n: tuple(f.shape) for n, f in out.items()} == {
        "layer1": (2, 3, 64, 8, 8),
        "layer2": (2, 3, 128, 4, 4),
        "layer3": (2, 3, 256, 2, 2),
    }
    x[:, 1] += 1
    changed = decoders(x, sizes)
    for name, before in out.items():
        same = torch.isclose(before, changed[name], atol=1e-6).all(dim=(0, 2, 3, 4))
        assert same.tolist() == [True, False, True]
    equal = decoders(x[:, :1].expand(2, 3, 256, 2, 2), sizes)["layer1"]
    assert not torch.allclose(equal[:, 0], equal[:, 1]), "the views share one decoder"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cosine_distance_and_its_gradient_are_torchs(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3 * 16, 4, 5, generator=generator).to(memory_format=layout)
    student = student.unflatten(1, (3, 16)).detach()
    student[0, 1] = 0
    teacher = torch.randn(2, 3, 16, 4, 5, generator=generator)
    teacher[1, 0, :, 0] = 0
    weights = torch.randn(2, 3, 4, 5, generator=generator)
    found, expected = student.clone().requires_grad_(), student.clone().requires_grad_()
    distance = cosine_distance(found, teacher)
    reference = 1 - F.cosine_similarity(expected, teacher, dim=2, eps=1e-6)
    torch.testing.assert_close(distance, reference, rtol=0, atol=3e-7)
    (distance * weights).sum().backward()
    (reference * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    half = cosine_distance(student.to(torch.bfloat16), teacher.to(torch.float16))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, reference.detach(), rtol=0, atol=0.02)


def test_distillation_loss_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    student = {"a": rng.normal(size=(2, 3, 4, 5, 5)), "b": rng.normal(size=(2, 3, 6, 2, 2))}
    teacher = {n: rng.normal(size=s.shape) for n, s in student.items()}
    mask = np.array([[True, False, True], [True, True, True]])
    expected = 0.0
    for name, s in student.items():
        t = teacher[name]
        per_view = []
        for b, v in np.argwhere(mask):
            distances = [
                1
                - s[b, v, :, y, x]
                @ t[b, v, :, y, x]
                / (np.linalg.norm(s[b, v, :, y, x]) * np.linalg.norm(t[b, v, :, y, x]))
                for y in range(s.shape[-2])
                for x in range(s.shape[-1])
            ]
            per_view.append(np.mean(distances))
        expected += np.mean(per_view)
    to = {n: torch.from_numpy(s).float() for n, s in student.items()}
    te = {n: torch.from_numpy(t).float() for n, t in teacher.items()}
    assert float(distillation_loss(to, te, torch.from_numpy(mask))) == pytest.approx(expected, abs=1e-5)


def test_maps_are_zero_where_student_and_teacher_agree_and_combine_as_told() -> None:
    teacher = {"a": torch.randn(1, 2, 4, 8, 8), "b": torch.randn(1, 2, 4, 4, 4)}
    student = {n: t.clone() for n, t in teacher.items()}
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert combine_maps(student, teacher, mask, (16, 16), "mean").abs().max() < 1e-5
    student["a"] = -teacher["a"]
    assert combine_maps(student, teacher, mask, (16, 16), "mean").mean() == pytest.approx(1, abs=1e-4)
    assert combine_maps(student, teacher, mask, (16, 16), "product").abs().max() < 1e-4
    student["b"] = -teacher["b"]
    assert combine_maps(student, teacher, mask, (16, 16), "product").mean() == pytest.approx(4, abs=1e-4)
