"""What a task brings along beside its function: hooks around each of its attempts, and a backoff of its own.

They are code, so they belong to the registered task and never reach the store. Each is a function that is offered some
arguments and given as many of them as it takes. When they are called, and what becomes of their failures, is decided
by those who run the task; here they are only checked and kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from attrs import fields_dict, frozen

from .errors import InvalidArgument

OFFERED: Final = {
    "on_setup": ("execution",),
    "on_success": ("execution", "result"),
    "on_failure": ("execution", "error"),
    "on_teardown": ("execution",),
    "backoff": ("attempt", "error"),
}
"""What each function is given, by its name as an option of a task."""


@frozen
class Fitted:
    """A function of the user's that is given the first so many of the arguments that are offered."""

    function: Callable[..., Any]
    takes: int

    def __call__(self, *offered: object) -> Any:
        """Call it with as much of this as it takes."""
        return self.function(*offered[: self.takes])


@frozen
class Hooks:
    """The hooks of a task, each with what it takes. See `Task`."""

    on_setup: Fitted | None = None
    on_success: Fitted | None = None
    on_failure: Fitted | None = None
    on_teardown: Fitted | None = None


HOOKS: Final = tuple(fields_dict(Hooks))


def fitted(option: str, function: object) -> Fitted:
    """The function with how much it takes. Raises `InvalidArgument` where it wants other arguments than are offered."""
    if not callable(function):
        raise InvalidArgument(option, function, "must be a function")
    offered = OFFERED[option]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # something built in, which does not say what it takes
        return Fitted(function, 0)
    takes = _places(signature)
    try:
        signature.bind(*offered[:takes])
    except TypeError as error:
        raise InvalidArgument(
            option, function, f"is given ({', '.join(offered)}), or the first of these that it takes: {error}"
        ) from None
    return Fitted(function, min(takes, len(offered)))


def _places(signature: inspect.Signature) -> int:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return max(map(len, OFFERED.values()))
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in by_place for parameter in parameters)
