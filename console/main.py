"""The command `clepsydra`: what it understands, and how it ends.

Results go to standard output, errors to standard error as one line; `--debug` shows where they came from. Exit codes
are in `errors.py`. What a command does stands in a module of its own; this one knows only their names and options,
and `COMMANDS` has a line for each.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from .. import ClepsydraError, ExecutionNotFound, JobNotFound, StoreError
from . import store_answers, store_definitions, store_executions, store_jobs, store_upkeep
from .arguments import AddCommand, Parser, add_backend, add_command, add_target, count_up_to, seconds
from .check import check
from .completion import ASKED_BY_SHELLS, add_completion, complete
from .errors import BY_SIGNAL, NOT_FOUND, PROBLEM, STORE, CommandError, UsageError
from .output import NOBODY_READS, forget_stdout, take_any_sign
from .run import run
from .simulate import add_simulate
from .stores import VARIABLE
from .upcoming import MOST, next_times
from .watcher import demo
from .words import Paint

_EXIT_CODES = """\
exit codes: 0 all went well; 1 a problem was found, or the scheduler failed; 2 the command line is not understood;
3 no such job or execution; 4 the store cannot be used; 130 or 143 a second SIGINT or SIGTERM cut the drain short"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    take_any_sign(sys.stdout)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words[:1] == [ASKED_BY_SHELLS]:
            return complete(parser(), words[1:])
        parsed = parser().parse_args(words)
        code: int = parsed.command(parsed)
        sys.stdout.flush()
    except CommandError as error:
        return _failed(error, error.code, arguments)
    except ClepsydraError as error:
        return _failed(error, _code_of(error), arguments)
    except KeyboardInterrupt:
        return BY_SIGNAL + 2
    except BrokenPipeError:
        forget_stdout()
        return NOBODY_READS
    return code


def _code_of(error: ClepsydraError) -> int:
    match error:
        case JobNotFound() | ExecutionNotFound():
            return NOT_FOUND
        case StoreError():
            return STORE
        case _:
            return PROBLEM


def _failed(error: Exception, code: int, arguments: Sequence[str] | None) -> int:
    if "--debug" in (sys.argv if arguments is None else arguments):
        traceback.print_exception(error)
    print(f"clepsydra: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


class _Help(argparse.RawDescriptionHelpFormatter):
    """Has room for the names of commands beside what they do; argparse forgets how far it indents them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 16


def parser() -> argparse.ArgumentParser:
    """All that the command line understands."""
    top = Parser(
        prog="clepsydra",
        description="A supervised, back-pressured job scheduler for async Python.",
        epilog=_EXIT_CODES,
        formatter_class=_Help,
    )
    top.add_argument("--version", action="version", version=f"clepsydra {_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands.add_parser)
    return top


def _version() -> str:
    try:
        return version("clepsydra")
    except PackageNotFoundError:
        return "(not installed)"


def _add_run(add: AddCommand) -> None:
    command = add_command(
        add,
        "run",
        run,
        "run a scheduler as a service, until SIGINT or SIGTERM",
        "The first signal drains: nothing new is started, and what runs has the grace of the settings. The second one "
        "cancels what still runs. A terminal shows a live screen with keys to act; elsewhere there is a line for each "
        "run.",
    )
    add_target(command)
    add_backend(command)
    _add_log_options(command)
    command.add_argument("--plain", action="store_true", help="plain lines on a terminal too, not the live screen")
    command.add_argument("--json", action="store_true", help="lines of JSON")


def _add_next(add: AddCommand) -> None:
    command = add_command(add, "next", next_times, "show when a cron expression runs")
    command.add_argument("expr", metavar="EXPR", help="in quotes: '*/5 * * * *', '0 30 9 * * MON-FRI', @daily")
    command.add_argument("--tz", default="UTC", help="its time zone, such as Europe/Zurich (default: UTC)")
    command.add_argument("--count", type=count_up_to(MOST), default=5, help="how many times (default: 5)")
    command.add_argument("--from", dest="start", metavar="TIME", help="after this time, in its zone (default: now)")
    command.add_argument("--name", default="", help="the job's name, from which H draws")


def _add_check(add: AddCommand) -> None:
    command = add_command(
        add,
        "check",
        lambda arguments: check(arguments, Paint(sys.stdout)),
        "validate a scheduler's jobs without running them",
        "The module is imported; no store is opened and nothing runs.",
    )
    add_target(command)
    command.add_argument("--strict", action="store_true", help="warnings fail the check as errors do")


def _add_demo(add: AddCommand) -> None:
    command = add_command(
        add,
        "demo",
        demo,
        "watch a small service at work: a watcher of this machine, on SQLite",
        "It remembers what it did: run it twice.",
    )
    add_backend(command)
    command.add_argument(
        "--for", dest="seconds", metavar="SECONDS", type=seconds, help="end after so long (default: at a signal)"
    )
    command.add_argument("--db", metavar="PATH", help="its database (default: a file in the temporary directory)")


def _crontab(arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise UsageError("crontabs need a POSIX system: process groups, users and signals")
    from .crontab import crontab  # it cannot be imported elsewhere

    return crontab(arguments)


def _add_crontab(add: AddCommand) -> None:
    command = add_command(
        add,
        "crontab",
        _crontab,
        "run what crontabs say, in the place of cron",
        "Each line is a job: its commands run in process groups of their own, and what they write is logged line by "
        "line. SIGTERM drains, SIGHUP or a changed file reads the crontab again. As process 1 of a container it reaps.",
    )
    command.add_argument(
        "files", metavar="FILE", nargs="+", help="a crontab, or a directory of them such as /etc/cron.d"
    )
    command.add_argument("--check", action="store_true", help="say what is wrong with each line, and run nothing")
    command.add_argument("--system", action="store_true", help="lines name a user before the command, as /etc/crontab")
    command.add_argument(
        "--tz", help="the zone of lines above which no CRON_TZ stands (default: TZ, or this machine's)"
    )
    command.add_argument("--clean-env", action="store_true", help="jobs get cron's bare environment, not this one's")
    command.add_argument("--timeout", metavar="SECONDS", type=seconds, help="end commands that run longer")
    command.add_argument("--overlap", action="store_true", help="start a command again while it still runs")
    command.add_argument(
        "--misfire",
        choices=("latest", "all", "none"),
        default="latest",
        help="which of the times that were missed, in a suspend or with --store at a restart, are made up for "
        "(default: latest)",
    )
    command.add_argument(
        "--store", metavar="URL", help=f"where history is kept (default: ${VARIABLE}, else it is forgotten at the end)"
    )
    command.add_argument(
        "--grace",
        metavar="SECONDS",
        type=seconds,
        default=5.0,
        help="what runs may go on so long at the end (default: 5)",
    )
    command.add_argument(
        "--kill-after",
        metavar="SECONDS",
        type=seconds,
        default=3.0,
        help="from SIGTERM to SIGKILL for a command that is to end (default: 3)",
    )
    command.add_argument(
        "--concurrency", metavar="COUNT", type=count_up_to(10_000), default=256, help="commands at once (default: 256)"
    )
    command.add_argument(
        "--poll", metavar="SECONDS", type=seconds, default=5.0, help="how often files are looked at (default: 5)"
    )
    command.add_argument("--reap", action="store_true", help="reap orphans also when this is not process 1")
    command.add_argument("--json", action="store_true", help="lines of JSON")
    _add_log_options(command)
    add_backend(command)


def _add_log_options(command: argparse.ArgumentParser) -> None:
    """What is told, and what not."""
    command.add_argument("-q", "--quiet", action="store_true", help="print no lines for runs that went well")
    levels = ("debug", "info", "warning", "error")
    command.add_argument(
        "--log-level",
        choices=levels,
        default="info",
        help="of the library's own log, on standard error (default: info)",
    )


COMMANDS: Final[tuple[Callable[[AddCommand], object], ...]] = (
    _add_run,
    _add_next,
    _add_check,
    add_simulate,
    _add_crontab,
    _add_demo,
    store_jobs.add_jobs,
    store_jobs.add_job,
    store_executions.add_history,
    store_executions.add_executions,
    store_executions.add_execution,
    store_jobs.add_pause,
    store_jobs.add_resume,
    store_jobs.add_stop,
    store_jobs.add_run_now,
    store_jobs.add_remove,
    store_executions.add_cancel,
    store_executions.add_retry,
    store_answers.add_stats,
    store_answers.add_verdicts,
    store_answers.add_explain,
    store_answers.add_verify,
    store_upkeep.add_prune,
    store_upkeep.add_migrate,
    store_definitions.add_export,
    store_definitions.add_import,
    add_completion,
)
"""What adds each command, in the order in which `--help` shows them."""
