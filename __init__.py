"""Clepsydra: a supervised, back-pressured job scheduler for long-running async apps.

A water clock is a chain of vessels, each fed by the one above and each holding back the next. Here the vessels are
stages: the job broadcaster keeps the jobs, the execution broadcaster turns time into due executions, the node
selector places them, the executor claims and runs them. `model/` has the words, `storage/` what is remembered,
`stages/` the chain in the order in which an event travels it, `pipeline/` what puts it together and keeps it alive.
These are the public names; anything else may change tomorrow.
"""

from typing import TYPE_CHECKING

from .model import events
from .model.calendar import Transition, transitions
from .model.clock import Clock, SystemClock
from .model.cron import Cron
from .model.definitions import job_from_data, job_to_data
from .model.errors import (
    ClepsydraError,
    DeclarationError,
    DuplicateId,
    DuplicateKey,
    ExecutionFailed,
    ExecutionNotFound,
    InvalidArgument,
    JobExists,
    JobNotFound,
    LeaseLost,
    NodeLost,
    NotInExecution,
    RestartLimitReached,
    ScheduleError,
    SchedulerFailed,
    SchedulerNotRunning,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
    UnknownTask,
)
from .model.execution import Attempt, Cause, Execution, Kind, State, Verdict
from .model.explanation import Explanation, Hindrance, Obstacle, Phase, Try, Vessel, Wait
from .model.filters import ExecutionFilter, JobFilter, Order
from .model.instants import Instant, to_datetime, to_instant
from .model.job import Job, JobRecord, JobState
from .model.policies import Misfire, OnLeaseLost, Overlap, Recovery, Retry, TimeoutFrom
from .model.schedule import Every, Once, Reboot, Schedule
from .model.signals import Cancel, Snooze
from .model.strategies import All, Candidate, Local, Node, NodeList, Random, RunStrategy
from .model.task import Call, Task
from .model.verification import Finding, Verification
from .pipeline.handles import ExecutionHandle
from .pipeline.health import Health
from .pipeline.operator import Operator
from .pipeline.scheduler import Scheduler
from .pipeline.settings import BroadcasterSettings, ExecutorSettings, SelectorSettings, Stages, StageSettings
from .pipeline.supervisor import Child, Intensity, Restart, Strategy, Supervisor
from .stages.own_transaction import Finish
from .stages.running import Run, current_execution
from .storage.memory import MemoryStorage
from .storage.migrating import Migration, migrate_store
from .storage.protocol import JobPage, Page, Storage, TaskRow
from .storage.sqlite import SQLiteStorage
from .storage.urls import postgres_storage, storage_at
from .storage.verifying import verify_store

if TYPE_CHECKING:
    from .storage.postgres import PostgresStorage as PostgresStorage
else:

    def __getattr__(name: str) -> object:
        """`PostgresStorage` needs an extra: it is imported when it is asked for."""
        if name != "PostgresStorage":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return postgres_storage()


__all__ = [
    "All",
    "Attempt",
    "BroadcasterSettings",
    "Call",
    "Cancel",
    "Candidate",
    "Cause",
    "Child",
    "ClepsydraError",
    "Clock",
    "Cron",
    "DeclarationError",
    "DuplicateId",
    "DuplicateKey",
    "Every",
    "Execution",
    "ExecutionFailed",
    "ExecutionFilter",
    "ExecutionHandle",
    "ExecutionNotFound",
    "ExecutorSettings",
    "Explanation",
    "Finding",
    "Finish",
    "Health",
    "Hindrance",
    "Instant",
    "Intensity",
    "InvalidArgument",
    "Job",
    "JobExists",
    "JobFilter",
    "JobNotFound",
    "JobPage",
    "JobRecord",
    "JobState",
    "Kind",
    "LeaseLost",
    "Local",
    "MemoryStorage",
    "Migration",
    "Misfire",
    "Node",
    "NodeList",
    "NodeLost",
    "NotInExecution",
    "Obstacle",
    "OnLeaseLost",
    "Once",
    "Operator",
    "Order",
    "Overlap",
    "Page",
    "Phase",
    "Random",
    "Reboot",
    "Recovery",
    "Restart",
    "RestartLimitReached",
    "Retry",
    "Run",
    "RunStrategy",
    "SQLiteStorage",
    "Schedule",
    "ScheduleError",
    "Scheduler",
    "SchedulerFailed",
    "SchedulerNotRunning",
    "SelectorSettings",
    "Snooze",
    "StageSettings",
    "Stages",
    "State",
    "Storage",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "Strategy",
    "Supervisor",
    "SystemClock",
    "Task",
    "TaskRow",
    "TimeoutFrom",
    "Transition",
    "Try",
    "UnknownTask",
    "Verdict",
    "Verification",
    "Vessel",
    "Wait",
    "current_execution",
    "events",
    "job_from_data",
    "job_to_data",
    "migrate_store",
    "storage_at",
    "to_datetime",
    "to_instant",
    "transitions",
    "verify_store",
]
