"""A call is bound to its task's signature when it is made, and again when it is read from the store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from clepsydra import Call, InvalidArgument, Task
from clepsydra.model.task import to_call


def plain(a: int, b: int = 2) -> tuple[Any, ...]:
    return a, b


def by_place(a: int, /, b: int, *, c: int = 3) -> tuple[Any, ...]:
    return a, b, c


def any_number(first: int, *others: int, **named: int) -> tuple[Any, ...]:
    return first, others, named


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "stored"),
    [
        (plain, (1,), {}, '{"a":1}'),
        (plain, (), {"b": 5, "a": 1}, '{"a":1,"b":5}'),
        (by_place, (1, 2), {"c": 4}, '{"a":1,"b":2,"c":4}'),
        (any_number, (1, 2, 3), {"x": 4}, '{"first":1,"others":[2,3],"x":4}'),
        (partial(plain, b=7), (1,), {}, '{"a":1}'),
    ],
)
def test_arguments_are_stored_by_name_and_come_back_as_they_were_given(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], stored: str
) -> None:
    task: Task[..., Any] = Task(function, "task")

    call = task.call(*args, **kwargs)
    positional, named = task.bind(call.args)

    assert call == Call("task", stored)
    assert function(*positional, **named) == function(*args, **kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, r"call=\[\]: does not fit mail\(a: .*missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 1}, "got an unexpected keyword argument 'c'"),
        (({"when": {"at": [object()]}},), {}, r"args\.a\.when\.at\[0\]=.* is a object; give JSON values"),
        ((1,), {"b": float("nan")}, r"args\.b=nan: is not a finite number"),
        (({1: "one"},), {}, r"args\.a=1: is a key that is not a string"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_by_name_and_place(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    task: Task[..., Any] = Task(plain, "mail")

    with pytest.raises(InvalidArgument, match=said):
        task.call(*args, **kwargs)


def test_stored_arguments_that_fit_no_more_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"do not fit mail.*unexpected keyword argument 'gone'"):
        Task(plain, "mail").bind('{"a":1,"gone":2}')


def test_what_a_job_runs_is_a_call_a_task_or_a_name_with_arguments() -> None:
    task: Task[..., Any] = Task(plain, "mail")

    assert to_call(task.call(1)) == to_call(task, {"a": 1}) == to_call("mail", {"a": 1}) == Call("mail", '{"a":1}')
    with pytest.raises(InvalidArgument, match="are in the call already"):
        to_call(task.call(1), {"a": 1})
    with pytest.raises(InvalidArgument, match="do not fit"):
        to_call(task, {"z": 1})
    with pytest.raises(InvalidArgument, match=r"must be task\.call"):
        to_call(plain)
