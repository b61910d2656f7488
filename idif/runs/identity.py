"""Identity of a run's encoders and training data, recorded at its start and compared by everything later."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from idif.data.features import EncoderSpec, FeatureSource, FeatureSpec
from idif.data.index import Index
from idif.errors import StoreMismatch
from idif.fingerprint import digest


@runtime_checkable
class HasContent(Protocol):
    """A feature source that knows the content of its samples' files."""

    @property
    def content_fingerprint(self) -> str:
        """SHA-256 (hex) over ids, cameras, classes and file contents of the samples."""
        ...


def check_encoders(arrays: Sequence[str], trained: FeatureSpec, given: FeatureSpec, where: str) -> None:
    """Refuse features that are not those of the training.

    Args:
        arrays: names of the arrays that are read.
        trained: specification of the training features.
        given: specification of the features at hand, which may contain more arrays.
        where: name of their source, for the message.

    Raises:
        StoreMismatch: encoder, weights, preparation or image size differ.
    """
    if given.image_size != trained.image_size:
        raise StoreMismatch(
            f"{where}: images of {given.image_size} px, but the run was trained on {trained.image_size} px"
        )
    before, now = _encoder_of_arrays(trained), _encoder_of_arrays(given)
    for name in arrays:
        if name not in before or name not in now:
            continue  # images and masks, or an array that `check_arrays` finds missing
        for what, then, there in (
            ("encoder", before[name].name, now[name].name),
            ("weights with SHA-256", before[name].weights_sha256[:12], now[name].weights_sha256[:12]),
            ("preparation", dict(before[name].preparation), dict(now[name].preparation)),
        ):
            if then != there:
                raise StoreMismatch(
                    f"{where}: the array {name} has the {what} {there}, but the run was trained with {then}"
                )


def _encoder_of_arrays(spec: FeatureSpec) -> dict[str, EncoderSpec]:
    return {array.name: encoder for encoder in spec.encoders for array in encoder.arrays}


def data_identity(source: FeatureSource, category: str) -> dict[str, str | None]:
    """Identity of a category's samples: ``samples`` (ids, cameras, classes) and ``content`` (also files).

    Args:
        source: the samples of this category alone; ``content`` is None if it does not know its files.
    """
    content = source.content_fingerprint if isinstance(source, HasContent) else None
    return {"samples": samples_digest(source.index, category), "content": content}


def samples_digest(index: Index, category: str) -> str:
    """SHA-256 (hex) over ids, cameras and classes of a category's samples."""
    samples = [
        [s.sample_id, s.sample_class, [None if v is None else [v.number, v.anomaly_class] for v in s.views]]
        for s in index.samples
        if s.category == category
    ]
    return digest(sorted(samples, key=lambda sample: str(sample[0])))


def check_identity(
    recorded: Mapping[str, Mapping[str, str | None]],
    now: Mapping[str, str | None],
    category: str,
    where: str,
) -> None:
    """Refuse training samples that are not those of the training.

    Args:
        recorded: {category: result of `data_identity`}; nothing is compared for a category it lacks.
        now: result of `data_identity` of the training samples at hand.
        category: the category.
        where: name of their source, for the message.

    Raises:
        StoreMismatch: samples were added, removed or changed.
    """
    before = recorded.get(category)
    if before is None:
        return
    if now["samples"] != before["samples"]:
        raise StoreMismatch(
            f"{where}: the training samples of {category} are not those of the run: other ids, cameras or "
            "labels; use the store that it was trained on, or train again"
        )
    if None not in (now["content"], before["content"]) and now["content"] != before["content"]:
        raise StoreMismatch(
            f"{where}: the training samples of {category} have other images than those of the run; use the "
            "store that it was trained on, or train again"
        )
