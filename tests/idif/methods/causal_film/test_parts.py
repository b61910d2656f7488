"""The parts of Causal-FiLM against what they are defined as."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idif.methods.causal_film.config import CausalFiLMConfig, PoolingConfig, SensorConfig
from idif.methods.causal_film.losses import gram_distance, largest_half, rank_and_spread
from idif.methods.causal_film.process import ProcessEncoder, drop_values
from idif.methods.causal_film.result import GeM, ResultEncoder, over_views
from idif.methods.causal_film.selective_scan import (
    LinearRecurrence,
    scan_in_torch,
    scan_with_kernel,
    selective_scan,
)
from idif.methods.causal_film.sensor import Mamba, SensorModulator, modulate


def scan_inputs(
    batch: int, steps: int, channels: int, states: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """values, step, rate, write, read and skip of a scan."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    rate = -torch.arange(1.0, states + 1, dtype=dtype).repeat(channels, 1)
    step = F.softplus(normal(batch, steps, channels) - 2)
    return [
        normal(batch, steps, channels),
        step,
        rate,
        normal(batch, steps, states),
        normal(batch, steps, states),
        normal(channels),
    ]


def scan_by_definition(
    values: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    """The recurrence as it is written down: one sample, one step, one channel after another."""
    batch, steps, channels = values.shape
    rows = []
    for sample in range(batch):
        state = values.new_zeros(channels, rate.shape[1])
        for t in range(steps):
            delta = step[sample, t][:, None]
            state = (delta * rate).exp() * state + delta * values[sample, t][:, None] * write[sample, t]
            rows.append(state @ read[sample, t] + skip * values[sample, t])
    return torch.stack(rows).view(batch, steps, channels)


def test_the_scan_is_the_recurrence_at_full_length() -> None:
    given = scan_inputs(1, 256, 6, 16)
    exact = scan_by_definition(*(x.double() for x in given))
    torch.testing.assert_close(selective_scan(*given), exact.float(), rtol=1e-6, atol=1e-6)


def test_the_scan_has_the_gradients_of_the_recurrence() -> None:
    given = scan_inputs(2, 12, 3, 4, torch.float64)
    gradients = []
    for scan in (scan_in_torch, scan_by_definition):
        leaves = [x.clone().requires_grad_() for x in given]
        scan(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for own, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(own, exact, rtol=1e-9, atol=1e-12)


def test_the_recurrence_passes_the_gradient_check() -> None:
    decay = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    inflow = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LinearRecurrence.apply, (decay, inflow))


def test_a_kernel_is_called_with_the_arguments_of_mamba_ssm() -> None:
    """The kernel itself needs a GPU: a plain recurrence with its signature, time last, stands in for it."""

    def kernel(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        state, read = u.new_zeros(*u.shape[:2], a.shape[1]), []
        for t in range(u.shape[2]):
            decay = torch.exp(delta[:, :, t, None] * a)
            state = decay * state + (delta * u)[:, :, t, None] * b[:, None, :, t]
            read.append((state * c[:, None, :, t]).sum(-1))
        return torch.stack(read, dim=2) + d[:, None] * u

    given = scan_inputs(2, 64, 8, 16)
    torch.testing.assert_close(scan_with_kernel(kernel, *given), scan_in_torch(*given), rtol=1e-4, atol=1e-5)


def test_a_mamba_block_looks_back_only_and_has_the_parameters_of_its_authors() -> None:
    assert sum(p.numel() for p in Mamba(SensorConfig()).parameters()) == 116_480
    block = Mamba(SensorConfig(width=8, state=4))
    series = torch.randn(2, 20, 8)
    changed = series.clone()
    changed[:, 12:] += 1
    before, after = block(series), block(changed)
    torch.testing.assert_close(after[:, :12], before[:, :12])
    assert (after[:, 12:] - before[:, 12:]).abs().min() > 0


def test_an_untrained_modulator_changes_nothing_and_a_missing_series_never_does() -> None:
    modulator = SensorModulator(3, 8, SensorConfig(width=8, layers=1, state=4))
    series, tokens = torch.randn(2, 10, 3), torch.randn(2, 5, 8)
    scale, shift = modulator(series, torch.tensor([True, True]))
    torch.testing.assert_close(modulate(tokens, scale, shift), tokens)
    torch.nn.init.normal_(modulator.project_out.weight)
    scale, shift = modulator(series, torch.tensor([True, False]))
    assert (scale[0] != 1).all()
    assert (scale[1] == 1).all()
    assert (shift[1] == 0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_gram_distance_is_that_of_the_matrices(reduction: str) -> None:
    z, p = torch.randn(2, 3, 16, dtype=torch.float64)
    grams = [x[:, :, None] * x[:, None, :] / 16 for x in (z, p)]
    squared = (grams[0] - grams[1]).square()
    exact = squared.sum(dim=(1, 2)) if reduction == "sum" else squared.mean(dim=(1, 2))
    torch.testing.assert_close(gram_distance(z, p, reduction), exact)  # type: ignore[arg-type]
    closed = z.square().sum(1) ** 2 + p.square().sum(1) ** 2 - 2 * (z * p).sum(1) ** 2
    torch.testing.assert_close(gram_distance(z, p), closed / 16**2)


def test_the_gram_distance_of_nearly_equal_vectors_keeps_its_digits() -> None:
    z = torch.randn(1, 512) * 10
    near = z + 1e-4 * torch.randn(1, 512)
    exact = gram_distance(z.double(), near.double())
    torch.testing.assert_close(gram_distance(z, near).double(), exact, rtol=1e-3, atol=0)


def test_gem_is_the_mean_at_one_and_near_the_maximum_for_large_exponents() -> None:
    tokens = torch.rand(2, 7, 4) + 0.1
    torch.testing.assert_close(GeM(1.0)(tokens), tokens.mean(dim=1))
    torch.testing.assert_close(GeM(200.0)(tokens), tokens.amax(dim=1), rtol=0.02, atol=0)
    below = GeM(1.0)
    torch.nn.init.constant_(below.exponent, 0.2)
    torch.testing.assert_close(below(tokens), tokens.mean(dim=1))
    assert torch.isfinite(GeM(3.0)(-tokens)).all()


def test_the_score_takes_the_larger_half() -> None:
    assert largest_half(torch.tensor([[1.0, -4.0, 2.0, 0.0]])).item() == 3
    assert largest_half(torch.tensor([[1.0, -4.0, 2.0]])).item() == 4


def test_rank_and_spread_tell_a_collapse() -> None:
    flat = torch.randn(1, 16).expand(8, 16) + 1e-7 * torch.randn(8, 16)
    rank, spread = rank_and_spread(flat)
    assert rank.item() == pytest.approx(1, abs=0.01)
    assert spread.item() < 1e-5
    line = torch.randn(8, 1) * torch.randn(1, 16)
    assert rank_and_spread(line)[0].item() == pytest.approx(1, abs=1e-4)
    rank, spread = rank_and_spread(torch.randn(8, 64))
    assert 5 < rank.item() <= 7
    assert spread.item() > 0.8
    assert [x.item() for x in rank_and_spread(torch.zeros(0, 4))] == [1, 0]


def test_the_maximum_is_over_present_stills_only() -> None:
    views = torch.tensor([[[-1.0, 2.0], [5.0, 5.0]], [[1.0, 1.0], [2.0, 2.0]]])
    mask = torch.tensor([[True, False], [False, False]])
    assert over_views(views, mask, "max").tolist() == [[-1, 2], [0, 0]]
    assert over_views(views, mask, "mean")[0].tolist() == [-1, 2]


def test_leading_tokens_can_be_left_out() -> None:
    config = CausalFiLMConfig(width=8, poolings=(PoolingConfig(array="tokens", pool="mean", skip=2),))
    encoder = ResultEncoder(config, (4,))
    tokens, mask = torch.randn(2, 1, 6, 4), torch.ones(2, 1, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, :, :2] = 9
    torch.testing.assert_close(encoder({"tokens": changed}, mask), encoder({"tokens": tokens}, mask))


def test_samples_without_video_or_sound_take_the_other() -> None:
    encoder = ProcessEncoder(CausalFiLMConfig(width=8, attention_heads=2, feedforward=16, layers=1)).eval()
    video, audio, shift = torch.randn(4, 5, 8), torch.randn(4, 3, 8), torch.randn(4, 8)
    seen, heard = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    together = encoder(video, audio, shift, (seen, heard))
    pairs = [(video, audio), (video, video), (audio, audio), (shift[:, None], shift[:, None])]
    for row, (asking, asked) in enumerate(pairs):
        alone = encoder.norm(encoder.layers(asking[row : row + 1], asked[row : row + 1]).mean(dim=1))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_dropped_values_keep_the_mean() -> None:
    features = torch.ones(200, 500)
    dropped = drop_values(features, 0.2, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert drop_values(features, 0.0, torch.Generator()) is features
