"""What `--json` has of each thing: plain documents, whose keys stay. Instants are text in UTC, lengths seconds."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from .. import (
    Attempt,
    Execution,
    Explanation,
    Instant,
    Job,
    JobRecord,
    Kind,
    Node,
    State,
    Verdict,
    Verification,
    job_to_data,
)
from .screen import iso, seconds

UNFINISHED = (State.PENDING, State.PLACING, State.HELD, State.RUNNING)


def of_definition(job: Job) -> dict[str, Any]:
    """A job's definition, moments as text."""
    definition: dict[str, Any] = json.loads(json.dumps(job_to_data(job), default=lambda at: iso(at)))
    return definition


def of_job(record: JobRecord, following: Instant | None) -> dict[str, Any]:
    """A job."""
    return {
        "name": record.name,
        "id": record.id,
        "state": record.state.value,
        "reason": record.reason,
        "schedule": record.schedule.describe() if record.schedule else None,
        "next_time": iso(following),
        "declared": record.declared,
        "generation": record.generation,
        "fired": record.fired,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
        "definition": of_definition(record.job),
    }


def of_execution(row: Execution) -> dict[str, Any]:
    """An execution."""
    return {
        "id": row.id,
        "job": row.job_name,
        "job_id": row.job_id,
        "task": row.work.task,
        "args": _value(row.work.args),
        "queue": row.work.queue,
        "priority": row.work.priority,
        "labels": dict(row.work.labels),
        "key": row.key,
        "cause": row.cause.value,
        "state": row.state.value,
        "verdict": row.verdict.value if row.verdict else None,
        "reason": row.reason,
        "nominal": iso(row.nominal),
        "due": iso(row.due_at),
        "not_before": iso(row.not_before),
        "created_at": iso(row.created_at),
        "first_started_at": iso(row.first_started_at),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "late": seconds(late_by(row)),
        "took": seconds(took(row)),
        "attempt": row.attempt,
        "recoveries": row.recoveries,
        "node": row.node,
        "target": row.target or None,
        "result": _value(row.result),
        "progress": _value(row.progress),
        "error": row.error,
    }


def of_attempt(attempt: Attempt) -> dict[str, Any]:
    """A past attempt."""
    return {
        "id": attempt.id,
        "number": attempt.number,
        "node": attempt.node,
        "not_before": iso(attempt.not_before),
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "ending": attempt.ending,
        "error": attempt.error,
    }


def of_verdict(verdict: Verdict) -> dict[str, Any]:
    """How a nominal time ended."""
    return {
        "nominal": iso(verdict.nominal),
        "verdict": verdict.kind.value if verdict.kind else None,
        "reason": verdict.reason,
        "execution_id": verdict.execution_id,
        "target": verdict.target or None,
    }


def of_node(node: Node) -> dict[str, Any]:
    """A registered scheduler."""
    return {"id": node.id, "name": node.name, "started_at": iso(node.started_at), "alive": node.alive}


def of_explanation(told: Explanation) -> dict[str, Any]:
    """An explanation, with its sentences."""
    return {
        "job": told.job,
        "asked": iso(told.asked),
        "nominal": iso(told.nominal),
        "phase": told.phase.value,
        "verdict": _kind(told.kind),
        "state": told.state.value if told.state else None,
        "reason": told.reason,
        "execution_id": told.execution_id,
        "task": told.task,
        "queue": told.queue,
        "due": iso(told.due),
        "fired": iso(told.fired),
        "started": iso(told.started),
        "ended": iso(told.ended),
        "ready": iso(told.ready),
        "late": _seconds(told.late_by),
        "waits": [
            {
                "vessel": wait.vessel.value,
                "since": iso(wait.since),
                "until": iso(wait.until),
                "length": _seconds(wait.length),
                "why": wait.why,
            }
            for wait in told.waits
        ],
        "tries": [
            {
                "number": each.number,
                "node": each.node,
                "started": iso(each.started),
                "ended": iso(each.ended),
                "ending": each.ending,
                "error": each.error,
            }
            for each in told.tries
        ],
        "will_run": told.will_run,
        "obstacles": [{"kind": each.kind.value, "what": each.what, "certain": each.certain} for each in told.obstacles],
        "sentences": list(told.sentences),
        "others": [of_explanation(other) for other in told.others],
    }


def of_verification(report: Verification) -> dict[str, Any]:
    """An audit."""
    return {
        "ok": report.ok,
        "jobs": report.jobs,
        "executions": report.executions,
        "findings": [
            {
                "law": each.law,
                "what": each.what,
                "job": each.job,
                "job_id": each.job_id,
                "nominal": iso(each.nominal),
                "execution_id": each.execution_id,
            }
            for each in report.findings
        ],
        "more": report.more,
    }


def late_by(row: Execution) -> int | None:
    """How long after it was due it first started; None: it has not."""
    return None if row.first_started_at is None else max(row.first_started_at - row.due_at, 0)


def took(row: Execution) -> int | None:
    """How long its last attempt ran; None: it has not started, or not ended."""
    if row.started_at is None or row.finished_at is None:
        return None
    return max(row.finished_at - row.started_at, 0)


def _kind(kind: Kind | None) -> str | None:
    return kind.value if kind else None


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _value(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text
