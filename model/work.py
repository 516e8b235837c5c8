"""Work: what an execution runs and under which rules.

One frozen value, shared by a job and all executions of that generation of it, so that a fire costs little. The store
keeps it as one JSON text beside the few columns that it searches by.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from .instants import Micros
from .payload import NO_ARGUMENTS, JsonText, Labels
from .policies import NO_RETRY, OnLeaseLost, Recovery, Retry, TimeoutFrom, retry_from_json, retry_to_json

DEFAULT_QUEUE = "default"


@frozen
class Work:
    """A call, where it waits, and what is done when it fails or is cut off. Durations in microseconds."""

    task: str
    args: JsonText = NO_ARGUMENTS
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    labels: Labels = ()
    retry: Retry = NO_RETRY
    timeout: Micros | None = None
    """Counted as `timeout_from` says."""
    start_by: Micros | None = None
    """How long after it is due it may still start."""
    recovery: Recovery = Recovery.RETRY
    recoveries: int | None = 3
    """How often it is recovered from dead nodes before it fails with `NodeLost`."""
    on_lease_lost: OnLeaseLost = OnLeaseLost.CONTINUE
    timeout_from: TimeoutFrom = TimeoutFrom.START
    _text: list[str] = field(factory=list[str], init=False, repr=False, eq=False, hash=False)

    def to_json(self) -> JsonText:
        """The rules that no column holds, as JSON text (made once)."""
        if not self._text:
            self._text.append(json.dumps(_rules(self), separators=(",", ":"), sort_keys=True))
        return self._text[0]

    def of_call(self, task: str, args: JsonText) -> Work:
        """Another call under the same rules, which need not be checked again."""
        return Work(
            task,
            args,
            self.queue,
            self.priority,
            self.labels,
            self.retry,
            self.timeout,
            self.start_by,
            self.recovery,
            self.recoveries,
            self.on_lease_lost,
            self.timeout_from,
        )


def _rules(work: Work) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if work.retry != NO_RETRY:
        rules["retry"] = retry_to_json(work.retry)
    if work.timeout is not None:
        rules["timeout"] = work.timeout
    if work.start_by is not None:
        rules["start_by"] = work.start_by
    if work.recovery is not Recovery.RETRY:
        rules["recovery"] = work.recovery.value
    if work.recoveries != 3:
        rules["recoveries"] = work.recoveries
    if work.on_lease_lost is not OnLeaseLost.CONTINUE:
        rules["on_lease_lost"] = work.on_lease_lost.value
    if work.timeout_from is not TimeoutFrom.START:
        rules["timeout_from"] = work.timeout_from.value
    return rules


@lru_cache(maxsize=4096)
def work_from_row(task: str, args: JsonText, queue: str, priority: int, labels: JsonText, rules: JsonText) -> Work:
    """The work that a stored row describes: its columns and its rules. Equal rows share one value."""
    data = json.loads(rules)
    return Work(
        task=task,
        args=args,
        queue=queue,
        priority=priority,
        labels=tuple(sorted(json.loads(labels).items())),
        retry=retry_from_json(data["retry"]) if "retry" in data else NO_RETRY,
        timeout=data.get("timeout"),
        start_by=data.get("start_by"),
        recovery=Recovery(data.get("recovery", "retry")),
        recoveries=data.get("recoveries", 3),
        on_lease_lost=OnLeaseLost(data.get("on_lease_lost", "continue")),
        timeout_from=TimeoutFrom(data.get("timeout_from", "start")),
    )


@lru_cache(maxsize=4096)
def labels_text(labels: Labels) -> JsonText:
    """Labels as a JSON object, as the stores keep them."""
    return json.dumps(dict(labels), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
