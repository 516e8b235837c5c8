"""What a job wants done when things do not go as planned: late, overlapping, failing, cut off.

Frozen values, checked when they are made, and the few pure functions that apply them. Durations are given as
`timedelta` or seconds and kept in microseconds. Nothing here knows a clock or a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, cast

from attrs import frozen

from .errors import InvalidArgument
from .instants import SECOND, Instant, Micros, to_micros


class Overlap(StrEnum):
    """What becomes of an execution whose job is still busy with `max_running` others (Temporal's words)."""

    __hash__ = str.__hash__  # looked up for every execution that ends; an enum computes its own hash in Python

    SKIP = "skip"
    """It is not run: verdict `overlap_skipped`."""
    ALLOW = "allow"
    """It runs beside them."""
    BUFFER_ONE = "buffer_one"
    """The first that comes waits for its turn, later ones are skipped."""
    BUFFER_ALL = "buffer_all"
    """All wait, and run one after the other."""
    CANCEL_RUNNING = "cancel_running"
    """Those that run are cancelled, and it runs when they have ended."""


class Recovery(StrEnum):
    """What becomes of an attempt whose node is gone."""

    RETRY = "retry"
    """It is tried again, at most `recoveries` times; a crash uses none of `Retry.attempts`."""
    FAIL = "fail"
    """It fails with `NodeLost`: for work that must not happen twice."""
    REQUEUE = "requeue"
    """It is tried again without a limit."""
    KEEP = "keep"
    """It stays as it is, for somebody to look at; its overlap is freed."""


class OnLeaseLost(StrEnum):
    """What a node does with a running task when it could not renew its lease in time."""

    CONTINUE = "continue"
    """It goes on; its outcome is fenced."""
    CANCEL = "cancel"
    """It is cancelled."""


class TimeoutFrom(StrEnum):
    """What a timeout is counted from."""

    START = "start"
    """The start of each attempt: every try has the whole time."""
    NOMINAL = "nominal"
    """The nominal time, or when enqueued or manual work was due: all tries together have it, and one that could not
    begin within it is not made.
    """


def length(argument: str, *, least: Micros = 0) -> Any:
    """An attrs converter: a duration of at least `least` microseconds."""

    def convert(value: timedelta | float) -> Micros:
        micros = to_micros(value, argument)
        if micros < least:
            raise InvalidArgument(argument, value, f"must be at least {least / SECOND:g} s")
        return micros

    return convert


def optional_length(argument: str, *, least: Micros = 0) -> Any:
    """An attrs converter: a duration, or None where there is none."""
    convert = length(argument, least=least)

    def convert_if_any(value: timedelta | float | None) -> Micros | None:
        return None if value is None else convert(value)

    return convert_if_any


def count_of(argument: str, *, least: int = 1, most: int | None = None) -> Any:
    """An attrs converter that only checks: a whole number within bounds."""

    def convert(value: Any) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < least
            or (most is not None and value > most)
        ):
            upper = "" if most is None else f" and at most {most}"
            raise InvalidArgument(argument, value, f"must be a whole number, at least {least}{upper}")
        return value

    return convert


def optional_count(argument: str, *, least: int = 1) -> Any:
    """An attrs converter: a whole number within bounds, or None."""
    convert = count_of(argument, least=least)

    def check_if_any(value: Any) -> int | None:
        return None if value is None else convert(value)

    return check_if_any


def one_of(argument: str, choices: Iterable[str] | type[StrEnum]) -> Any:
    """An attrs converter: one of a few words, as the enum's member where there is an enum."""
    if isinstance(choices, type):
        enum: type[StrEnum] | None = choices
        words = tuple(member.value for member in choices)
    else:
        enum, words = None, tuple(choices)

    def convert(value: Any) -> Any:
        if not isinstance(value, str) or value not in words:
            raise InvalidArgument(argument, value, f"must be one of {', '.join(words)}")
        return enum(value) if enum else str(value)

    return convert


@frozen(init=False)
class Misfire:
    """What becomes of nominal times that passed while the scheduler was down, suspended or saturated.

    `latest` (the default) runs the last of them once, now, and settles the others as `coalesced`; `all` runs each, one
    after another unless overlap is allowed; `none` runs none of them. A time is overdue when it is more than `grace`
    late; those that are not simply run. `window`: a time later than this is `missed` whatever `take` says, checked
    again at the start. `limit`: of those that `all` would take, only the last `limit`.
    """

    take: Literal["latest", "all", "none"]
    window: Micros | None
    limit: int | None
    grace: Micros

    def __init__(
        self,
        take: Literal["latest", "all", "none"] = "latest",
        *,
        window: timedelta | float | None = None,
        limit: int | None = None,
        grace: timedelta | float = timedelta(seconds=1),
    ) -> None:
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            one_of("take", ("latest", "all", "none"))(take),
            optional_length("window")(window),
            optional_count("limit")(limit),
            length("grace")(grace),
        )


@frozen(init=False)
class Retry:
    """How often a failing execution is tried, and when.

    `attempts` counts all tries, the first included. The wait before try n + 1 is `backoff * factor ** (n - 1)`, at most
    `max_backoff`, less up to the fraction `jitter` of it (deterministic, so a simulation repeats); it is a real
    not-before time. `on` limits retries to these exceptions, `give_up_on` excludes some: classes, or their
    `module.Name`.
    """

    attempts: int
    backoff: Micros
    factor: float
    max_backoff: Micros
    jitter: float
    on: tuple[str, ...]
    give_up_on: tuple[str, ...]

    def __init__(
        self,
        attempts: int = 3,
        *,
        backoff: timedelta | float = timedelta(seconds=1),
        factor: float = 2.0,
        max_backoff: timedelta | float = timedelta(hours=1),
        jitter: float = 0.1,
        on: Iterable[type[BaseException] | str] = (),
        give_up_on: Iterable[type[BaseException] | str] = (),
    ) -> None:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1000:
            raise InvalidArgument("factor", factor, "must be a number from 1 to 1000")
        if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            raise InvalidArgument("jitter", jitter, "must be a fraction from 0 to 1")
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            count_of("attempts", most=1_000_000)(attempts),
            length("backoff")(backoff),
            float(factor),
            length("max_backoff")(max_backoff),
            float(jitter),
            _exception_names("on", on),
            _exception_names("give_up_on", give_up_on),
        )

    def delay(self, attempt: int, seed: str = "") -> Micros:
        """How long to wait after the failure of try number `attempt` (1 first)."""
        if self.backoff <= 0:
            return 0
        # Beyond this exponent any factor above 1 has passed any max_backoff; it keeps the power finite.
        grown = self.backoff * self.factor ** min(attempt - 1, 100)
        delay = int(min(grown, self.max_backoff))
        if not self.jitter:
            return delay
        return delay - int(delay * self.jitter * _fraction(f"{seed}:{attempt}"))

    def applies_to(self, error: BaseException) -> bool:
        """Whether this kind of failure is one to try again at all."""
        names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
        if names.intersection(self.give_up_on):
            return False
        return not self.on or bool(names.intersection(self.on))

    def goes_on(self, attempt: int, error: BaseException) -> bool:
        """Whether another try follows the failure of try number `attempt` (1 first)."""
        return attempt < self.attempts and self.applies_to(error)

    def next_try(self, attempt: int, error: BaseException, now: Instant, seed: str = "") -> Instant | None:
        """The not-before time of the next try, or None when this was the last."""
        return now + self.delay(attempt, seed) if self.goes_on(attempt, error) else None


def misfire_to_json(misfire: Misfire) -> dict[str, Any]:
    """Plain JSON values, in microseconds."""
    return {"take": misfire.take, "window": misfire.window, "limit": misfire.limit, "grace": misfire.grace}


def misfire_from_json(data: Mapping[str, Any]) -> Misfire:
    """The inverse of `misfire_to_json`. Equal ones are mostly one."""
    return _misfire_of(data["take"], data.get("window"), data.get("limit"), data["grace"])


@lru_cache(maxsize=256, typed=True)
def _misfire_of(
    take: Literal["latest", "all", "none"], window: Micros | None, limit: int | None, grace: Micros
) -> Misfire:
    return Misfire(
        take,
        window=None if window is None else timedelta(microseconds=window),
        limit=limit,
        grace=timedelta(microseconds=grace),
    )


def retry_to_json(retry: Retry) -> dict[str, Any]:
    """Plain JSON values, in microseconds."""
    return {
        "attempts": retry.attempts,
        "backoff": retry.backoff,
        "factor": retry.factor,
        "max_backoff": retry.max_backoff,
        "jitter": retry.jitter,
        "on": list(retry.on),
        "give_up_on": list(retry.give_up_on),
    }


def retry_from_json(data: Mapping[str, Any]) -> Retry:
    """The inverse of `retry_to_json`."""
    return Retry(
        data["attempts"],
        backoff=timedelta(microseconds=data["backoff"]),
        factor=data["factor"],
        max_backoff=timedelta(microseconds=data["max_backoff"]),
        jitter=data["jitter"],
        on=data["on"],
        give_up_on=data["give_up_on"],
    )


def _exception_names(argument: str, given: Iterable[type[BaseException] | str]) -> tuple[str, ...]:
    if isinstance(given, str | type):
        given = (given,)
    return tuple(_exception_name(argument, item) for item in given)


def _exception_name(argument: str, item: object) -> str:
    if isinstance(item, type) and issubclass(cast(type[Any], item), BaseException):
        return f"{item.__module__}.{item.__qualname__}"
    if isinstance(item, str) and "." in item:
        return item
    raise InvalidArgument(argument, item, "must be exception classes, or their names as 'module.Name'")


def _fraction(seed: str) -> float:
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


NO_RETRY = Retry(attempts=1)
"""The default: one try."""

DEFAULT_MISFIRE = Misfire()
