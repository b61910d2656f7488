"""Finds values of a config that are written as another type: text in quotes for a number, 1 for true.

Pydantic would convert them without a word.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def mistyped(
    section: type[BaseModel], raw: Mapping[str, Any], below: Mapping[str, type[BaseModel]]
) -> Iterator[tuple[str, str, Any]]:
    """Yield (dotted key, expectation, value) for every value of another type than its key's.

    Args:
        section: the section that ``raw`` is written for; unknown keys are skipped.
        raw: values as YAML gives them.
        below: the section of a key whose annotation does not name one, e.g. the method's.
    """
    for key, value in raw.items():
        if key not in section.model_fields:
            continue
        annotation = section.model_fields[key].annotation
        inner = below.get(key, annotation)
        if isinstance(value, Mapping):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from ((f"{key}.{name}", *rest) for name, *rest in mistyped(inner, value, {}))
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            wanted = _expectation(annotation, one)
            if wanted is not None:
                yield key, wanted, one


def _expectation(annotation: Any, value: Any) -> str | None:
    """The expectation that a value fails by its type alone; None if pydantic is to judge it."""
    if isinstance(value, str) and not _admits(annotation, (str, Path)):
        return "a value without quotes" if _admits(annotation, (int, float, bool)) else None
    if isinstance(value, bool):
        if _admits(annotation, (bool,)):
            return None
        return "a number, not true or false" if _admits(annotation, (int, float)) else None
    if isinstance(value, (int, float)) and not _admits(annotation, (int, float)):
        return "true or false" if _admits(annotation, (bool,)) else None
    return None


def _admits(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """Whether an annotation has a member of these types; members of lists count."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return any(type(member) in kinds for member in members)
    if origin is Annotated:
        return _admits(members[0], kinds)
    if origin in (Union, UnionType, tuple, list):
        return any(_admits(member, kinds) for member in members)
    return annotation in kinds or annotation is Any
