"""Differences of two specifications of features are told part by part, whatever their form on the disk."""

import json
from dataclasses import replace
from typing import Any

import pytest

from idif.data.arrays import feature_map
from idif.data.features import EncoderSpec, FeatureSpec

PREPARATION = {"resize": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


def encoder(name: str = "resnet", **changes: Any) -> EncoderSpec:
    arrays = tuple(feature_map(f"{name}{number}", 8 * number, 16 // number, name) for number in (1, 2))
    return replace(EncoderSpec(name, "file", "0" * 64, "image", PREPARATION, arrays), **changes)


def spec(*encoders: EncoderSpec, **changes: Any) -> FeatureSpec:
    return replace(FeatureSpec(encoders or (encoder(),), 64, "float32"), **changes)


TWO = (encoder(), encoder("dino"))
FEWER = encoder(arrays=encoder().arrays[:1])
WIDER = encoder(arrays=(feature_map("resnet1", 9, 16, "resnet"), *encoder().arrays[1:]))


@pytest.mark.parametrize(
    ("ours", "theirs", "phrases"),
    [
        (spec(), spec(), []),
        (spec(), spec(encoder(weights="another")), []),
        (spec(), spec(storage="float16"), ["storage: 'float32', not 'float16'"]),
        (spec(), spec(stores_images=False), ["stores_images: True, not False"]),
        (spec(stores_images=False), spec(stores_images=False, shift=2), ["shift: 4, not 2"]),
        (spec(), spec(mask_rule="new"), ["mask_rule: None, not 'new'"]),
        (spec(*TWO), spec(*TWO, mask_rule="new"), ["mask_rule: 'nonzero', not 'new'"]),
        (spec(), spec(*TWO), ["encoders: resnet, not resnet, dino"]),
        (spec(*TWO), spec(*reversed(TWO)), ["encoders: resnet, dino, not dino, resnet"]),
        (
            spec(*TWO),
            spec(encoder(weights_sha256="1"), TWO[1]),
            [f"encoders.resnet.weights_sha256: {'0' * 64!r}, not '1'"],
        ),
        (
            spec(*TWO),
            spec(encoder(preparation=PREPARATION | {"resize": "area"}), TWO[1], image_size=32),
            ["encoders.resnet.preparation.resize: 'bicubic', not 'area'", "image_size: 64, not 32"],
        ),
        (spec(*TWO), spec(FEWER, TWO[1]), ["encoders.resnet.arrays: resnet1, resnet2, not resnet1"]),
        (
            spec(*TWO),
            spec(WIDER, TWO[1]),
            ["encoders.resnet.arrays.resnet1.shape: [8, 16, 16], not [9, 16, 16]"],
        ),
    ],
)
def test_each_part_that_differs_is_one_phrase(
    ours: FeatureSpec, theirs: FeatureSpec, phrases: list[str]
) -> None:
    assert sorted(ours.differences(theirs)) == sorted(phrases)
    assert (ours.fingerprint == theirs.fingerprint) == (phrases == [])
    again = FeatureSpec.from_json(json.loads(json.dumps(theirs.to_json())))
    assert sorted(ours.differences(again)) == sorted(phrases), "a spec read from a store"
