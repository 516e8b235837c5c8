"""One SQLite file, one file of effects, and workers (`worker_program.py`) that come and go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .inquest import Inquest, executions_in, has_happened, lines_of, unfinished_in, violations_of_law_1
from .processes import Nursery, Program

JOBS = ("allow", "all", "skip", "latest", "buffer", "cancel", "retry", "parent")
ONE_AT_A_TIME = tuple(job for job in (*JOBS, "moving") if job not in ("allow", "parent"))
SECOND = 1_000_000


class Scene:
    """Where it happens."""

    def __init__(self, processes: Nursery, folder: Path) -> None:
        self.processes = processes
        self.database, self.effects = folder / "jobs.db", folder / "effects"
        self.killed: dict[str, int] = {}

    def start(self, *options: str, jobs: tuple[str, ...] = JOBS) -> Program:
        """A worker that is about to open the store."""
        name = f"worker-{len(self.processes.programs)}"
        declared = ("--jobs", ",".join(jobs))
        worker = self.processes.start(
            "worker_program", self.database, self.effects, name, *declared, *options, name=name
        )
        self.wait_for(worker, "opening")
        return worker

    def wait_for(self, worker: Program, what: str, **facts: object) -> None:
        """Until the worker has written such a line."""
        self.processes.wait_for(lambda: self.says(worker, what, **facts), f"{what} {facts} of {worker.name}")

    def says(self, worker: Program, what: str, **facts: object) -> bool:
        """Whether the worker has written such a line."""
        return has_happened(self.effects, what, process=worker.name, **facts)

    def lines_of(self, worker: Program) -> list[dict[str, Any]]:
        """All that the worker has written."""
        return [line for line in lines_of(self.effects) if line["process"] == worker.name]

    def release(self) -> None:
        """Let the runs of the job `until` end."""
        Path(f"{self.effects}.release").touch()

    def kill(self, worker: Program) -> None:
        """Now."""
        worker.kill()
        assert worker.killed_at is not None
        self.killed[worker.name] = worker.killed_at
        worker.errors.unlink()

    def await_death(self, worker: Program) -> None:
        """It kills itself."""
        self.processes.wait_for_end(worker)
        self.kill(worker)

    def settle(self) -> None:
        """A last worker declares no jobs and works off what is left."""
        worker = self.start(jobs=())
        self.wait_for(worker, "quiet")
        self.processes.wait_for(lambda: unfinished_in(self.database) == 0, "the end of all that was begun")
        self.processes.stop(worker)

    def audit_recent(self, seconds: float) -> None:
        """Law 1 holds at every instant, not only in the end."""
        since = time.time_ns() // 1000 - round(seconds * SECOND)
        nothing_in(violations_of_law_1(self.database, [*JOBS, "moving"], since))

    def audit(self) -> Inquest:
        """All of it."""
        nothing_in(violations_of_law_1(self.database, [*JOBS, "moving"]))
        inquest = Inquest(lines_of(self.effects), executions_in(self.database), self.killed)
        nothing_in(inquest.objections())
        nothing_in(inquest.overlaps(ONE_AT_A_TIME))
        return inquest


def nothing_in(objections: list[str]) -> None:
    """Fail with the first few."""
    assert not objections, "\n".join([f"{len(objections)} objections:", *objections[:20]])
