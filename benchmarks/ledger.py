"""The audit after a benchmark of ours: figures of a run whose books do not balance are no figures."""

from __future__ import annotations

from clepsydra import Scheduler, Storage, Verification, verify_store


def audited(storage: Storage, *, at_least: int = 1) -> None:
    """Hold what a run has left in its store to the laws. Raises `SystemExit` with what was found, or if it is empty."""
    report = _balanced(verify_store(storage))
    if report.executions < at_least:
        raise SystemExit(f"the store has {report.executions} executions, and at least {at_least} were run")


async def audited_while_it_runs(scheduler: Scheduler) -> None:
    """The same of a scheduler whose store ends with it."""
    _balanced(await scheduler.verify())


def _balanced(report: Verification) -> Verification:
    if not report.ok:
        found = len(report.findings) + report.more
        raise SystemExit(f"the ledger does not balance: {found} findings, the first: {report.findings[0]}")
    return report
