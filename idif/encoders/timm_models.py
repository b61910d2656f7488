"""Encoders of the library timm: any of its models by name, convolutional networks and transformers alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from idif.data.arrays import ArraySpec, feature_map
from idif.encoders.family import DEFAULT_IMAGE_SIZE, EncoderFamily, FamilyMaker
from idif.encoders.hub import cached_file, require_network
from idif.encoders.necks import NECKS
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import Normalization, SquareImage, preparation_record, reflect_padding
from idif.errors import ConfigError, WeightsError

PREFIX = "timm:"
"""Prefix of encoder names that are timm's own: ``timm:convnext_tiny.fb_in22k``."""

ALIASES = {
    **{f"efficientnet_b{number}": f"tf_efficientnet_b{number}.aa_in1k" for number in range(5)},
    **{f"tf_efficientnet_b{number}": f"tf_efficientnet_b{number}.aa_in1k" for number in range(5)},
    "tf_efficientnet_lite0": "tf_efficientnet_lite0.in1k",
    **{
        f"vit_{size}_patch14_dinov2": f"vit_{size}_patch14_dinov2.lvd142m"
        for size in ("small", "base", "large")
    },
    **{
        f"vit_{size}_patch16_dinov3": f"vit_{size}_patch16_dinov3.lvd1689m"
        for size in ("small", "base", "large")
    },
}
"""Encoder name -> timm's name with the tag of its weights. The EfficientNets are those that UniAD uses,
with their authors' weights, under the paper's name and under timm's, which calls another training of the
architecture ``efficientnet_b4``."""

_FILE = "model.safetensors"
"""The weights' file in timm's repositories on the Hugging Face hub."""
_SIZE_OPTIONS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Arguments by which timm's models accept other image sizes; each family knows at most one of the first."""


@dataclass(frozen=True)
class TapLayer:
    """One layer of a model that can be tapped."""

    index: int
    """Its position in timm's ``feature_info``."""
    number: int
    """Its number in ``taps``."""
    name: str
    channels: int
    stride: int


class TimmTrunk(nn.Module):
    """A timm model up to its last tap, with timm's key names.

    float32 [N,3,S,S], normalized -> the neck's arrays of {layer: [N,C,S/stride,S/stride]}; tokens of a
    transformer that belong to no patch are dropped.
    """

    def __init__(self, net: Any, layers: Sequence[TapLayer], options: EncoderOptions) -> None:
        """Cut ``net`` behind the last of the layers that are tapped."""
        super().__init__()
        self._names = [layer.name for layer in layers]
        self._indices = [layer.index for layer in layers]
        self._neck = NECKS[options.neck].apply
        net.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The arrays; see the class."""
        maps = self.net.forward_intermediates(
            images, indices=self._indices, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return self._neck(dict(zip(self._names, maps, strict=True)))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.load_state_dict(*args, **kwargs)


def timm_maker(name: str, encoder: str) -> FamilyMaker:
    """The maker of the family of a timm model.

    Args:
        name: timm's name, with or without a tag.
        encoder: name in configs and stores.
    """
    return partial(_timm_family, name, encoder)


@cache
def _timm_family(name: str, encoder: str, options: EncoderOptions) -> EncoderFamily:
    known = {layer.number: layer for layer in tap_layers(name, encoder)}
    taps = options.taps or default_taps(list(known.values()))
    chosen = replace(options, taps=taps)
    for number in taps:
        if number not in known:
            raise ConfigError(f"taps: {encoder} has {', '.join(map(str, known))}, got {number}")
    layers = [known[number] for number in taps]
    stride = max(layer.stride for layer in layers)
    facts = _skeleton(name, encoder).pretrained_cfg
    normalization = Normalization(tuple(facts["mean"]), tuple(facts["std"]))
    own_size = facts["input_size"][-1]

    def build() -> nn.Module:
        trunk = TimmTrunk(_create(name, encoder), layers, chosen)
        if chosen.padding == "reflect":
            reflect_padding(trunk, encoder)
        return trunk

    @cache
    def arrays(image_size: int) -> tuple[ArraySpec, ...]:
        with torch.device("meta"), torch.no_grad():
            trunk = TimmTrunk(_create(name, encoder), layers, EncoderOptions()).eval()
            try:
                maps = trunk(torch.empty(1, 3, image_size, image_size))
            except Exception as error:  # models refuse sizes by assertions and errors of all kinds
                raise ConfigError(
                    f"image_size: {encoder} takes no images of {image_size} px ({error})"
                ) from None
        taps = []
        for layer in layers:
            shape, side = tuple(maps[layer.name].shape[1:]), image_size // layer.stride
            if shape != (layer.channels, side, side):
                raise ConfigError(
                    f"image_size: at {image_size} px {layer.name} of {encoder} is {list(shape)}, expected "
                    f"{[layer.channels, side, side]}"
                )
            taps.append(feature_map(layer.name, layer.channels, side, encoder, signed=True))
        return NECKS[chosen.neck].arrays(taps)

    return EncoderFamily(
        build=build,
        arrays=arrays,
        preparation=preparation_record(normalization, chosen),
        read=SquareImage(chosen.resize, chosen.crop_from),
        absent_shape=lambda size: (3, size, size),
        prepare=normalization,
        stride=stride,
        smallest=2 * stride if chosen.padding == "reflect" else stride,
        image_size=DEFAULT_IMAGE_SIZE if own_size % stride else own_size,
        key_names=f"timm's {name.partition('.')[0]}",
        pretrained=partial(pretrained_weights, name, encoder),
        options=chosen,
        whole_network=lambda: frozenset(_skeleton(name, encoder).state_dict()),
    )


def tap_layers(name: str, encoder: str) -> list[TapLayer]:
    """The layers of a timm model that can be tapped, shallow to deep.

    A layer's number is its stride where all strides differ, else its position, from 0: of blocks, as a
    transformer has them.

    Raises:
        ConfigError: timm is not installed or has no such model, or the model gives no feature maps.
    """
    net = _skeleton(name, encoder)
    if not hasattr(net, "feature_info") or not hasattr(net, "prune_intermediate_layers"):
        raise ConfigError(f"encoder: {encoder} gives no feature maps of its layers")
    info = [dict(entry) for entry in getattr(net.feature_info, "info", net.feature_info)]
    strides = [entry["reduction"] for entry in info]
    by_stride = len(set(strides)) == len(strides)
    return [
        TapLayer(
            index=index,
            number=entry["reduction"] if by_stride else index,
            name=f"stride{entry['reduction']}" if by_stride else f"block{index}",
            channels=entry["num_chs"],
            stride=entry["reduction"],
        )
        for index, entry in enumerate(info)
    ]


def default_taps(layers: Sequence[TapLayer]) -> tuple[int, ...]:
    """Strides 4, 8 and 16, as far as there are any; of blocks, the last of each quarter."""
    if layers[0].name.startswith("stride"):
        return tuple(layer.number for layer in layers if layer.number in (4, 8, 16)) or (layers[-1].number,)
    depth = len(layers)
    return tuple(sorted({depth // 4, depth // 2, 3 * depth // 4, depth - 1}))


@cache
def _skeleton(name: str, encoder: str) -> Any:
    """The whole model without values."""
    with torch.device("meta"):
        return _create(name, encoder)


def _create(name: str, encoder: str, **options: Any) -> Any:
    try:
        import timm
    except ImportError:
        raise ConfigError(f"encoder: {encoder} needs timm; install `idif[encoders]`") from None
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model.partition('_')[0]}*")[:5])
        raise ConfigError(f"encoder: timm has no model {name!r}" + (f"; it has {near}, ..." if near else ""))
    if tag and name not in timm.list_pretrained(f"{model}.*"):
        raise ConfigError(f"encoder: timm has no weights {tag!r} of {model}")
    for sizes in _SIZE_OPTIONS:
        try:
            return timm.create_model(name, num_classes=0, **sizes, **options)
        except TypeError:  # the model has no such argument
            continue
    raise AssertionError(name)


def pretrained_weights(name: str, encoder: str) -> Mapping[str, Tensor]:
    """The published weights of a whole timm model, from the hub's cache or a download.

    Args:
        name: timm's name, with or without a tag.
        encoder: name in configs and stores, for messages.

    Raises:
        WeightsError: they are not in the cache and cannot be downloaded.
    """
    facts = _skeleton(name, encoder).pretrained_cfg
    try:
        # a file in the cache is found without asking the network, which would be tried for a minute
        repository = facts.get("hf_hub_id")
        cached = cached_file(repository, _FILE) if repository else None
        if cached is None and repository:
            require_network()
        overlay = {} if cached is None else {"pretrained_cfg_overlay": {"file": cached}}
        state: Mapping[str, Tensor] = _create(name, encoder, pretrained=True, **overlay).state_dict()
    except Exception as error:  # the hub's client raises its HTTP library's exceptions too
        place = f"https://huggingface.co/{facts['hf_hub_id']}/resolve/main/{_FILE}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"pretrained weights of {encoder} are not in timm's cache and cannot be downloaded ({reason}); "
            f"get {place if facts.get('hf_hub_id') else facts.get('url')} and give that file, or ask for "
            "untrained weights"
        ) from None
    return state
