"""What every frozen encoder promises: run for each kind of `idif.encoders.frozen.find_family`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cache import FeatureStore
from cache.building.build import build_store
from cache.building.request import BuildRequest
from idif.data.index import Index
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.encoders.options import NO_OPTIONS, EncoderOptions
from idif.errors import ConfigError, WeightsError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An encoder to try, untrained."""

    name: str
    options: EncoderOptions = NO_OPTIONS
    image_size: int = 64
    others: tuple[EncoderOptions, ...] = ()
    """Options of which each must change the fingerprint."""
    ill_fitting: tuple[int, ...] = (40,)
    """Image sizes that it refuses."""

    def load(self, weights: str | Path = "untrained") -> FrozenEncoder:
        return load_encoder(weights, self.name, self.options)


@cache
def loaded(case: Case) -> FrozenEncoder:
    """The untrained encoder, shared by tests that do not change it."""
    return case.load()


def inputs(case: Case, count: int = 3) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, case.image_size, case.image_size), np.uint8))


def state(encoder: FrozenEncoder) -> State:
    return {name: tensor.clone().contiguous() for name, tensor in encoder.module.state_dict().items()}


def fingerprint(encoder: FrozenEncoder, size: int) -> str:
    return EncoderSet((encoder,), size).spec("float16").fingerprint


def a_matrix(weights: State) -> str:
    """Name of a tensor with at least two axes of more than one entry."""
    return next(name for name, tensor in weights.items() if tensor.ndim > 1 and tensor.shape[0] > 1)


def check_it_gives_the_arrays_it_declares(case: Case) -> None:
    encoder = loaded(case)
    out = encoder(inputs(case))
    declared = encoder.arrays(case.image_size)
    assert list(out) == [array.name for array in declared]
    for array in declared:
        values = out[array.name]
        assert tuple(values.shape) == (3, *array.shape), array.name
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
        assert array.signed or bool((values >= 0).all()), f"{array.name} is declared as never negative"
        assert array.origin == case.name


def check_it_is_frozen(case: Case) -> None:
    encoder = loaded(case)
    assert not any(module.training for module in encoder.module.modules())
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    out = encoder(inputs(case, 1).float().div(255).requires_grad_())
    assert not any(values.requires_grad for values in out.values())


def check_images_have_no_influence_on_each_other(case: Case) -> None:
    encoder, images = loaded(case), inputs(case)
    together, turned, alone = encoder(images), encoder(images.flip(0)), encoder(images[:1])
    for name, values in together.items():
        torch.testing.assert_close(turned[name].flip(0), values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[name], values[:1], rtol=1e-4, atol=1e-5)


def check_it_loads_the_same_twice(case: Case) -> None:
    first, again = loaded(case), case.load()
    assert again.sha256 == first.sha256
    assert fingerprint(again, case.image_size) == fingerprint(first, case.image_size)
    one, other = first(inputs(case, 1)), again(inputs(case, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)


def check_weights_round_trip(case: Case, folder: Path) -> None:
    """As they are, and as training scripts wrap them."""
    encoder = loaded(case)
    changed = state(encoder)
    changed[a_matrix(changed)][0] += 0.5
    save_file(changed, folder / "w.safetensors")
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in changed.items()}}
    torch.save(wrapped, folder / "w.pth.tar")
    first, other = case.load(folder / "w.safetensors"), case.load(folder / "w.pth.tar")
    assert first.weights == other.weights == "file"
    assert first.sha256 == other.sha256 != encoder.sha256
    assert fingerprint(first, case.image_size) != fingerprint(encoder, case.image_size)
    for name, tensor in changed.items():
        assert torch.equal(first.module.state_dict()[name], tensor)


def check_every_option_is_fingerprinted(case: Case) -> None:
    encoder = loaded(case)
    prints = {fingerprint(encoder, case.image_size)}
    for options in case.others:
        other = replace(encoder, options=options)
        prints.add(fingerprint(other, case.image_size))
        assert EncoderOptions.recorded(other.spec(case.image_size)) in (other.family.options, NO_OPTIONS)
    assert len(prints) == 1 + len(case.others)


def check_wrong_weights_are_refused(case: Case, folder: Path) -> None:
    right = state(loaded(case))
    name = a_matrix(right)
    path = folder / "w.safetensors"

    def refused(weights: State, expected: str) -> None:
        save_file(weights, path)
        with pytest.raises(WeightsError) as caught:
            case.load(path)
        assert str(caught.value).startswith(f"{path}: tensor {name!r}") or "belongs to another" in expected
        assert expected in str(caught.value)

    refused({key: tensor for key, tensor in right.items() if key != name}, "is missing; expected")
    refused(right | {name: right[name][1:].contiguous()}, f"expected {list(right[name].shape)}")
    refused(right | {name: torch.full_like(right[name], torch.nan)}, "values that are not finite")
    used = name.partition(".")[0]
    refused(right | {f"{used}.97.weight": torch.ones(2)}, "belongs to another network")
    save_file(right | {"projection.weight": torch.ones(2)}, path)
    assert case.load(path).sha256 == loaded(case).sha256


def check_sizes_that_do_not_fit_are_refused(case: Case) -> None:
    for size in case.ill_fitting:
        with pytest.raises(ConfigError, match=r"^image_size: ") as caught:
            EncoderSet((loaded(case),), size)
        assert "\n" not in str(caught.value)


def check_a_store_loads_the_same_encoder(case: Case, data: Path, index: Index, folder: Path) -> None:
    encoders = EncoderSet((loaded(case),), case.image_size)
    build_store(BuildRequest(data, index, folder / "s", encoders, "float32", workers=1))
    store = FeatureStore.open(folder / "s")
    again = store.encoder_set()
    assert again.spec("float32") == store.spec == encoders.spec("float32")
    assert again.spec("float32").fingerprint == store.spec.fingerprint
    sample = encoders.decode(data, store.index.samples[0])
    images = torch.from_numpy(again.decode(data, store.index.samples[0])["images"])
    assert torch.equal(images, torch.from_numpy(sample["images"]))
    batch = store.read([0])
    assert torch.equal(batch.images[0], images)
    first, other = loaded(case)(images), again.encoders[0](images)
    for name, values in other.items():
        assert torch.equal(values, first[name]), name
        shown = batch.view_mask[0]
        torch.testing.assert_close(batch.arrays[name][0][shown], values[shown], rtol=1e-4, atol=1e-4)


Check = Callable[[Case], None]
CHECKS: tuple[Check, ...] = (
    check_it_gives_the_arrays_it_declares,
    check_it_is_frozen,
    check_images_have_no_influence_on_each_other,
    check_it_loads_the_same_twice,
    check_every_option_is_fingerprinted,
    check_sizes_that_do_not_fit_are_refused,
)
"""Those that need nothing but the case."""
