"""Tasks: registered callables with stable names, and calls of them.

A task stays callable as the function that it is. `call(...)` binds arguments against the signature and gives a value
that can be stored: a name and JSON, never code. What else belongs to a task is code as well, and stays here: hooks, a
backoff of its own, how many may run at once. This module runs nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar, overload

from attrs import evolve, frozen

from .errors import SHOWN, InvalidArgument
from .hooks import HOOKS, Fitted, Hooks, fitted
from .json_schema import arguments_schema, result_schema
from .payload import NO_ARGUMENTS, JsonText, decode, encode_arguments
from .policies import optional_count

P = ParamSpec("P")
R = TypeVar("R")
AnyHook = TypeVar("AnyHook", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_LONGEST_NAME = 200


def check_task_name(name: object, argument: str = "name") -> str:
    """A task's name: identifiers joined by dots, as in `mail.welcome`."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise InvalidArgument(
            argument,
            name,
            f"must be identifiers joined by dots, as in 'mail.welcome', {_LONGEST_NAME} characters at most",
        )
    return name


@frozen
class Call:
    """A task's name and the arguments to call it with. Made by `task.call(...)`."""

    task: str
    args: JsonText = NO_ARGUMENTS


class Task(Generic[P, R]):
    """A registered callable. `aliases` are names that stored work may still use after a rename.

    `concurrency` is how many may run at once in this process; None: as many as their queue allows. `backoff` gives the
    wait before the next try where `retry` allows one: called with the number of the try that has failed (1 first) and
    the error. Around each attempt, inside its slot, `on_setup` is called before the function, `on_success(execution,
    result)` or `on_failure(execution, error)` after it, and `on_teardown` at the end, whatever has happened. Each takes
    as many of these arguments as it has parameters, and may be `async`.
    """

    def __init__(
        self,
        function: Callable[P, R],
        name: str | None = None,
        aliases: Iterable[str] = (),
        *,
        concurrency: int | None = None,
        backoff: Callable[..., timedelta | float] | None = None,
        on_setup: Callable[..., Any] | None = None,
        on_success: Callable[..., Any] | None = None,
        on_failure: Callable[..., Any] | None = None,
        on_teardown: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise InvalidArgument("function", function, "must be a function: 'async def', or 'def' to run in a thread")
        self.function = function
        self.name = check_task_name(name if name is not None else _default_name(function))
        self.aliases = tuple(check_task_name(alias, "aliases") for alias in aliases)
        self.signature = inspect.signature(function)
        # A partial or a wrapper of an async function is not one itself; its call may still give an awaitable.
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(_innermost(function)))
        self.concurrency: int | None = optional_count("concurrency")(concurrency)
        self.backoff: Fitted | None = None if backoff is None else fitted("backoff", backoff)
        self.hooks: Hooks | None = None
        for option, hook in zip(HOOKS, (on_setup, on_success, on_failure, on_teardown), strict=True):
            if hook is not None:
                self._hook(option, hook)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself, called here and now, without the scheduler."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.name!r})"

    # Decorators, for those who would rather write a hook below its task.

    def on_setup(self, hook: AnyHook) -> AnyHook:
        """Call this before each attempt: `hook(execution)`. What it raises is the failure of the attempt."""
        return self._hook("on_setup", hook)

    def on_success(self, hook: AnyHook) -> AnyHook:
        """Call this after an attempt that has succeeded: `hook(execution, result)`."""
        return self._hook("on_success", hook)

    def on_failure(self, hook: AnyHook) -> AnyHook:
        """Call this after an attempt that has failed: `hook(execution, error)`."""
        return self._hook("on_failure", hook)

    def on_teardown(self, hook: AnyHook) -> AnyHook:
        """Call this at the end of each attempt, however it ended: `hook(execution)`."""
        return self._hook("on_teardown", hook)

    def _hook(self, option: str, hook: AnyHook) -> AnyHook:
        hooks = self.hooks or Hooks()
        if getattr(hooks, option) is not None:
            raise InvalidArgument(option, hook, f"is there already: {self!r} has one")
        self.hooks = evolve(hooks, **{option: fitted(option, hook)})
        return hook

    @cached_property
    def input_schema(self) -> JsonText:
        """The JSON schema of its arguments by name, from the type hints."""
        return arguments_schema(_innermost(self.function), self.signature)

    @cached_property
    def output_schema(self) -> JsonText:
        """The JSON schema of its result, from the type hint."""
        return result_schema(_innermost(self.function))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """This call as a value to schedule or enqueue. Raises `InvalidArgument` if the signature or JSON refuses it."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgument("call", kwargs or list(args), f"does not fit {self._shape()}: {error}") from None
        return Call(self.name, encode_arguments(self._by_name(bound)))

    def check(self, args: JsonText) -> None:
        """Raise `InvalidArgument` unless stored arguments fit the signature."""
        self.bind(args)

    def bind(self, args: JsonText) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for the function, from stored JSON."""
        if args == NO_ARGUMENTS:
            return self._bind({})
        return self._bind(decode(args))

    def _bind(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional: list[Any] = []
        keywords = dict(arguments)
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional.extend(keywords.pop(parameter.name, ()))
            elif parameter.name in keywords and self._goes_by_position(parameter):
                positional.append(keywords.pop(parameter.name))
        try:
            self.signature.bind(*positional, **keywords)
        except TypeError as error:
            raise InvalidArgument("args", dict(arguments), f"do not fit {self._shape()}: {error}") from None
        return tuple(positional), keywords

    def _goes_by_position(self, parameter: inspect.Parameter) -> bool:
        """Whether an argument must be given by its place: by its own kind, or because `*args` follow it."""
        spreads = any(other.kind is other.VAR_POSITIONAL for other in self.signature.parameters.values())
        return parameter.kind is parameter.POSITIONAL_ONLY or (
            spreads and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        )

    def _by_name(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        arguments = dict(bound.arguments)
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
            elif parameter.kind is parameter.VAR_POSITIONAL and parameter.name in arguments:
                arguments[parameter.name] = list(arguments[parameter.name])
        return arguments

    def _shape(self) -> str:
        text = f"{self.name}{self.signature}"
        return text if len(text) <= 2 * SHOWN else text[: 2 * SHOWN] + "..."


@overload
def to_call(task: Call, args: None = None) -> Call: ...
@overload
def to_call(task: object, args: Mapping[str, Any] | None = None) -> Call: ...
def to_call(task: object, args: Mapping[str, Any] | None = None) -> Call:
    """What users give as a job's task: a `Call`, a task, or a task's name with its arguments."""
    if isinstance(task, Call):
        if args is not None:
            raise InvalidArgument("args", args, "are in the call already; give one or the other")
        return task
    if args is not None and not isinstance(args, Mapping):
        raise InvalidArgument("args", args, "must be a mapping of argument names to values")
    arguments = encode_arguments(args or {})
    if isinstance(task, Task):
        task.check(arguments)
        return Call(task.name, arguments)
    if isinstance(task, str):
        return Call(check_task_name(task, "task"), arguments)
    raise InvalidArgument("task", task, "must be task.call(...), a registered task, or the name of one")


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    while (wrapped := getattr(function, "func", None)) is not None and callable(wrapped):
        function = wrapped
    return function if inspect.isroutine(function) else type(function).__call__


def _default_name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or "main"
    qualified = getattr(function, "__qualname__", None)
    if qualified is None or "<lambda>" in qualified:
        raise InvalidArgument("name", None, "must be given for a callable without a name of its own")
    return f"{module.strip('_')}.{qualified.replace('<locals>.', '')}"
