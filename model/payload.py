"""Arguments, labels and results as JSON text: the only form in which the store keeps them (law 11).

What JSON cannot carry is refused here, at the call, with the place in the value where it stands. Text is compact and
sorted, so that equal values have equal texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from .errors import InvalidArgument

JsonText: TypeAlias = str
"""A JSON value as text."""

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Labels as sorted pairs."""

_SCALARS = (str, bool, int, float, type(None))
_DEEPEST = 100

NO_ARGUMENTS: JsonText = "{}"

RESERVED = "clepsydra."
"""Keys of labels that begin so are ours."""

GROUP, CORRELATION = "clepsydra.group", "clepsydra.correlation"
"""The labels that hold a correlation group and a correlation id."""


def encode(value: Any, argument: str) -> JsonText:
    """The JSON text of a value. Raises `InvalidArgument` naming the path of what JSON cannot carry."""
    _check(value, argument, 0)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def decode(text: JsonText) -> Any:
    """The value that a JSON text stands for."""
    return json.loads(text)


def encode_arguments(arguments: Mapping[str, Any]) -> JsonText:
    """The JSON object of a task's arguments by name."""
    return encode(dict(arguments), "args") if arguments else NO_ARGUMENTS


def to_labels(
    labels: Mapping[str, str] | Labels | None, *, group: str | None = None, correlation: str | None = None
) -> Labels:
    """Labels as sorted pairs of strings, those of a correlation among them."""
    own = correlation_labels(group, correlation)
    if labels is not None and not isinstance(labels, Mapping | tuple):
        raise InvalidArgument("labels", labels, "must be a mapping of strings to strings")
    pairs = labels.items() if isinstance(labels, Mapping) else labels or ()
    for key, value in pairs:
        _check_label(key, value)
    return tuple(sorted((*pairs, *own.items())))


def correlation_labels(group: str | None, correlation: str | None) -> dict[str, str]:
    """A correlation group and id as the labels that they are kept as."""
    own: dict[str, str] = {}
    for argument, key, value in (("group", GROUP, group), ("correlation", CORRELATION, correlation)):
        if value is not None:
            if not isinstance(value, str) or not value or not _is_plain(value):
                raise InvalidArgument(argument, value, "must be text, not empty, without NUL and lone surrogates")
            own[key] = value
    return own


def _check_label(key: object, value: object) -> None:
    if not isinstance(key, str) or not isinstance(value, str) or not key:
        raise InvalidArgument("labels", {key: value}, "keys and values must be strings, keys not empty")
    if not _is_plain(key) or not _is_plain(value):
        raise InvalidArgument("labels", {key: value}, "has a NUL or a lone surrogate, which not every store can keep")
    if key.startswith(RESERVED):
        raise InvalidArgument(
            "labels", {key: value}, f"keys that begin with {RESERVED!r} are reserved; see `group` and `correlation`"
        )


def _is_plain(text: str) -> bool:
    return text.isprintable() or ("\0" not in text and _is_encodable(text))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(value: Any, path: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidArgument(path, "...", f"is nested deeper than {_DEEPEST} levels, or refers to itself")
    if isinstance(value, _SCALARS):
        _check_scalar(value, path)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast(Sequence[object], value)):
            _check(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, Mapping):
        for key, item in cast(Mapping[object, object], value).items():
            if not isinstance(key, str):
                raise InvalidArgument(path, key, "is a key that is not a string; JSON has string keys only")
            _check_scalar(key, f"{path}: key")
            _check(item, f"{path}.{key}", depth + 1)
    else:
        raise InvalidArgument(
            path, value, f"is a {type(value).__name__}; give JSON values: strings, numbers, lists, dicts"
        )


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise InvalidArgument(path, value, "is not a finite number; JSON has no word for it")
    if isinstance(value, str) and not value.isprintable() and not _is_encodable(value):
        raise InvalidArgument(path, value, "has a lone surrogate, which is not text")
