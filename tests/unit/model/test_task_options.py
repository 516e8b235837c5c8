"""What a task brings along is checked when it is registered: hooks, a backoff of its own, how many may run at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clepsydra import InvalidArgument, Task
from clepsydra.model.hooks import Fitted, fitted


def welcome() -> None: ...


def nothing() -> tuple[object, ...]:
    return ()


def one(execution: object) -> tuple[object, ...]:
    return (execution,)


def both(execution: object, error: object = "none") -> tuple[object, ...]:
    return execution, error


def all_there_is(*arguments: object) -> tuple[object, ...]:
    return arguments


def with_an_option(execution: object, *, more: int = 1) -> tuple[object, ...]:
    return execution, more


def both_needed(execution: object, other: object) -> None: ...


def option_needed(*, needed: object) -> None: ...


@pytest.mark.parametrize("concurrency", [0, -1, "x", 1.5, True])
def test_qu12_a_concurrency_that_is_no_positive_number_is_refused(concurrency: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"concurrency=.* at least 1"):
        Task(welcome, concurrency=concurrency)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (nothing, ()),
        (one, ("run",)),
        (both, ("run", "error")),
        (all_there_is, ("run", "error")),
        (with_an_option, ("run", 1)),
    ],
)
def test_a_hook_is_given_as_much_as_it_takes(function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    assert fitted("on_failure", function)("run", "error") == given


@pytest.mark.parametrize("function", [both_needed, option_needed, "print", None])
def test_a_hook_that_wants_what_nobody_gives_is_refused(function: Any) -> None:
    with pytest.raises(InvalidArgument, match="on_setup"):
        fitted("on_setup", function)


def test_hooks_are_given_as_options_or_added_by_decorators_and_stay_what_they_are() -> None:
    def prepare() -> str:
        return "prepared"

    task = Task(welcome, on_setup=prepare)

    @task.on_teardown
    def clean_up() -> str:
        return "cleaned"

    assert clean_up() == "cleaned"
    assert task.hooks is not None
    assert (task.hooks.on_setup, task.hooks.on_teardown) == (Fitted(prepare, 0), Fitted(clean_up, 0))
    assert Task(welcome).hooks is None


def test_a_task_has_one_hook_of_a_kind() -> None:
    task = Task(welcome, on_setup=welcome)

    with pytest.raises(InvalidArgument, match=r"on_setup=.* is there already"):
        task.on_setup(welcome)
