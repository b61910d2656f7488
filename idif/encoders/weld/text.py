"""CLIP's vector of the sentence "a normal weld": the same for every sample, and of no file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.data.features import NO_INPUT
from idif.encoders.family import EncoderFamily
from idif.encoders.hub import hub_weights
from idif.encoders.weld.library import transformers

PROMPT = "a normal weld"
PROMPT_TOKENS = (49406, 320, 5967, 39776, 49407)
"""`PROMPT` in CLIP's vocabulary, between the tokens of start and end; so no tokenizer is needed."""
WIDTH = 512


@dataclass(frozen=True)
class TextSize:
    """One size of CLIP's text encoder."""

    width: int
    depth: int
    heads: int
    repository: str | None = None
    """Name of the pretrained weights on the Hugging Face hub."""


class _TextEncoder(nn.Module):
    """[N,1] of any values -> {text: [N,512]}, of unit length."""

    tokens: Tensor

    def __init__(self, size: TextSize, name: str) -> None:
        super().__init__()
        library = transformers(name)
        config = library.CLIPTextConfig(
            hidden_size=size.width,
            intermediate_size=4 * size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            projection_dim=WIDTH,
        )
        self.net = library.CLIPTextModelWithProjection(config)
        self.register_buffer("tokens", torch.tensor([PROMPT_TOKENS]), persistent=False)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The array; see the class."""
        vector = nn.functional.normalize(self.net(input_ids=self.tokens).text_embeds, dim=1)
        return {"text": vector.expand(len(inputs), -1)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are the library's."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are the library's."""
        return self.net.load_state_dict(*args, **kwargs)


def _read(path: Path, image_size: int) -> npt.NDArray[np.float32]:
    raise AssertionError("an encoder without input reads no file")


def text_family(name: str, size: TextSize) -> EncoderFamily:
    """The family of a size of CLIP's text encoder under a name of `ENCODERS`."""
    repository = size.repository
    return EncoderFamily(
        build=lambda: _TextEncoder(size, name),
        arrays=lambda image_size: (ArraySpec("text", ("channel",), (WIDTH,), "float32", name, signed=True),),
        preparation={"prompt": PROMPT, "tokens": list(PROMPT_TOKENS)},
        read=_read,
        prepare=lambda inputs: inputs,
        stride=1,
        key_names="transformers' CLIPTextModelWithProjection",
        pretrained=None
        if repository is None
        else partial[Mapping[str, Tensor]](hub_weights, name, repository),
        absent_shape=lambda image_size: (1,),
        input=NO_INPUT,
        # a table of consecutive numbers that published files hold
        whole_network=lambda: frozenset({"text_model.embeddings.position_ids"}),
    )
