"""The encoders of weld runs in three sizes: as published, of a demonstration, and of tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from idif.encoders.family import FamilyMaker, fixed
from idif.encoders.weld.audio import AudioSize, audio_family
from idif.encoders.weld.sensors import sensor_family
from idif.encoders.weld.stills import StillSize, still_maker
from idif.encoders.weld.text import TextSize, text_family
from idif.encoders.weld.video import VideoSize, video_family

_VIDEO = {
    "vjepa2_large": VideoSize(256, 32, 1024, 24, 16, "facebook/vjepa2-vitl-fpc64-256"),
    "vjepa2_small": VideoSize(96, 32, 60, 2, 2),
    "vjepa2_tiny": VideoSize(32, 8, 24, 1, 1),
}
FULL_TOKENS = {name: f"{name}_tokens" for name in _VIDEO}
"""Video encoder -> the one with the same weights that gives all tokens instead of a mean per moment."""
_VIDEO |= {FULL_TOKENS[name]: replace(size, full=True) for name, size in _VIDEO.items()}
_AUDIO = {
    "ast_base": AudioSize(1024, 14, 768, 12, 12, "MIT/ast-finetuned-audioset-14-14-0.443"),
    "ast_small": AudioSize(592, 16, 64, 2, 4),
    "ast_tiny": AudioSize(64, 16, 16, 1, 2),
}
_STILLS = {
    "dinov3_huge_plus_b20_b31": StillSize(),
    "dinov3_small_b20_b31": StillSize(48, 3, 112),
    "dinov3_tiny_b20_b31": StillSize(16, 1, 32),
}
_TEXT = {
    "clip_text": TextSize(512, 12, 8, "openai/clip-vit-base-patch32"),
    "clip_text_small": TextSize(32, 1, 2),
}
_SENSORS = "weld_sensors"

WELD_ENCODERS: dict[str, FamilyMaker] = {
    **{name: fixed(video_family(name, size)) for name, size in _VIDEO.items()},
    **{name: fixed(audio_family(name, size)) for name, size in _AUDIO.items()},
    **{name: still_maker(name, size) for name, size in _STILLS.items()},
    **{name: fixed(text_family(name, size)) for name, size in _TEXT.items()},
    _SENSORS: fixed(sensor_family(_SENSORS)),
}
"""Name in configs and stores -> maker of the family."""

_SETS = {
    "weld": ("dinov3_huge_plus_b20_b31", "vjepa2_large", "ast_base", "clip_text", _SENSORS),
    "weld-small": ("dinov3_small_b20_b31", "vjepa2_small", "ast_small", "clip_text_small", _SENSORS),
    "weld-tiny": ("dinov3_tiny_b20_b31", "vjepa2_tiny", "ast_tiny", "clip_text_small", _SENSORS),
}


def with_full_tokens(names: Sequence[str]) -> tuple[str, ...]:
    """The encoders' names with those of video replaced as in `FULL_TOKENS`."""
    return tuple(FULL_TOKENS.get(name, name) for name in names)


WELD_SETS: Mapping[str, tuple[str, ...]] = {
    **_SETS,
    **{f"{name}-tokens": with_full_tokens(names) for name, names in _SETS.items()},
}
"""Name of all encoders that a run needs -> their names; ``-tokens``: with all tokens of the video. The sets
``weld-small`` and ``weld-tiny`` have seeded weights only."""
