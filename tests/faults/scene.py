"""One store, one file of effects, and workers (`worker_program.py`) that come and go."""

from __future__ import annotations

import time
from pathlib import Path

from clepsydra import verify_store

from .inquest import Effects, Inquest, executions_in, violations_of_law_1
from .places import FilePlace, Place
from .processes import Nursery, Program

JOBS = ("allow", "all", "skip", "latest", "buffer", "cancel", "retry", "parent")
ONE_AT_A_TIME = tuple(job for job in (*JOBS, "moving") if job not in ("allow", "parent"))
SECOND = 1_000_000


class Scene:
    """Where it happens."""

    def __init__(self, processes: Nursery, place: Place, folder: Path) -> None:
        self.processes, self.place = processes, place
        self.effects = Effects(folder / "effects")
        self.killed: dict[str, int] = {}

    @property
    def on_file(self) -> bool:
        """Whether the store is a file; it has locks that tell at once who is dead."""
        return isinstance(self.place, FilePlace)

    def start(self, *options: str, jobs: tuple[str, ...] = JOBS) -> Program:
        """A worker that is about to open the store."""
        name = f"worker-{len(self.processes.programs)}"
        declared = ("--jobs", ",".join(jobs))
        worker = self.processes.start(
            "worker_program", *self.place.arguments, self.effects.path, name, *declared, *options, name=name
        )
        self.wait_for(worker, "opening")
        return worker

    def wait_for(self, worker: Program, what: str, **facts: object) -> None:
        """Until the worker has written such a line."""
        self.processes.wait_for(lambda: self.says(worker, what, **facts), f"{what} {facts} of {worker.name}")

    def says(self, worker: Program, what: str, **facts: object) -> bool:
        """Whether the worker has written such a line."""
        wanted = {"what": what, **facts}
        return any(wanted.items() <= line.items() for line in self.effects.of(worker.name))

    def wait_for_next(self, worker: Program, what: str, since: int, **facts: object) -> None:
        """Until it has written such a line since that time of the wall clock, in nanoseconds."""
        wanted = {"what": what, **facts}
        self.processes.wait_for(
            lambda: any(
                wanted.items() <= line.items() and line["at"] >= since for line in self.effects.of(worker.name)
            ),
            f"the next {what} {facts} of {worker.name}",
        )

    def release(self) -> None:
        """Let the runs of the job `until` end."""
        Path(f"{self.effects.path}.release").touch()

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

    def freeze(self, worker: Program) -> None:
        """Stop it for a while, and not while it holds the lock of a file, which nobody could take from it."""

        def is_frozen() -> bool:
            worker.freeze()
            if self.place.is_free():
                return True
            worker.thaw()
            return False

        self.processes.wait_for(is_frozen, f"an instant at which {worker.name} holds no lock")
        self.killed[worker.name] = time.time_ns()

    def unfinished(self) -> int:
        """How many executions have not ended."""
        return int(self.place.ask("SELECT count(*) FROM executions WHERE open = 1")[0][0])

    def settle(self) -> None:
        """A last worker declares no jobs and works off what is left."""
        worker = self.start(jobs=())
        self.wait_for(worker, "quiet")
        self.processes.wait_for(lambda: self.unfinished() == 0, "the end of all that was begun")
        self.processes.stop(worker)

    def audit_recent(self, seconds: float) -> None:
        """Law 1 holds at every instant, not only in the end."""
        since = time.time_ns() // 1000 - round(seconds * SECOND)
        nothing_in(violations_of_law_1(self.place.storage(), [*JOBS, "moving"], since))

    def audit(self) -> Inquest:
        """All of it."""
        inquest = self.audit_without_overlaps()
        nothing_in(inquest.overlaps(ONE_AT_A_TIME))
        return inquest

    def audit_without_overlaps(self) -> Inquest:
        """Where a process was taken for dead that was not, what it had begun went on beside its repetition."""
        nothing_in(list(map(str, verify_store(self.place.storage()).findings)))
        inquest = Inquest(self.effects.all(), executions_in(self.place.storage()), self.killed)
        nothing_in(inquest.objections())
        return inquest


def nothing_in(objections: list[str]) -> None:
    """Fail with the first few."""
    assert not objections, "\n".join([f"{len(objections)} objections:", *objections[:20]])
