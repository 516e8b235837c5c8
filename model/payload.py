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


def to_labels(labels: Mapping[str, str] | Labels | None) -> Labels:
    """Labels as sorted pairs of strings."""
    if not labels:
        return ()
    if not isinstance(labels, Mapping | tuple):
        raise InvalidArgument("labels", labels, "must be a mapping of strings to strings")
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise InvalidArgument("labels", {key: value}, "keys and values must be strings, keys not empty")
    return tuple(sorted(pairs))


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
            _check(item, f"{path}.{key}", depth + 1)
    else:
        raise InvalidArgument(
            path, value, f"is a {type(value).__name__}; give JSON values: strings, numbers, lists, dicts"
        )


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise InvalidArgument(path, value, "is not a finite number; JSON has no word for it")
    if isinstance(value, str) and not value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(path, value, "has a lone surrogate, which is not text") from None
