"""Pictures of the program at work: each scene runs the real command in a terminal of its own, and is drawn as an SVG.

    python tools/terminal_pictures.py [NAME ...]        # into docs/pictures/

The terminal is `pyte`; a picture takes its colours from the page that it stands on, light or dark.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import pyte
from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
CELL, LINE, SIZE = 8.4, 18, 14
_LIGHT = {
    "red": "#b3261e",
    "green": "#1a7f37",
    "brown": "#8a6100",
    "blue": "#0550ae",
    "magenta": "#8250df",
    "cyan": "#1b7c83",
}
_DARK = {
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
}
_FONT = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_PAPER = {"light": ("#ffffff", "#1f2328", "#656d76"), "dark": ("#0d1117", "#e6edf3", "#8b949e")}

JOBS = """
import random

import anyio
from clepsydra import Cron, Every, ExecutorSettings, Job, Scheduler, SQLiteStorage, Stages

scheduler = Scheduler(
    SQLiteStorage("jobs.db"), name="api-1", stages=Stages(executor=ExecutorSettings(queues={"mail": 4, "reports": 2}))
)
random.seed(4)


@scheduler.job(Every(3), name="feeds")
async def feeds():
    if random.random() < 0.4:
        raise ValueError("the feed answered 503 Service Unavailable")


@scheduler.job(Every(2), name="digest", queue="mail", overlap="allow")
async def digest():
    await anyio.sleep(random.random() * 3)


@scheduler.job(Every(5), name="probe")
async def probe():
    await anyio.sleep(7)


@scheduler.job(Every(1), name="sample-load")
@scheduler.job(Every(minutes=2), name="sweep caches")
@scheduler.job(Cron("0 3 * * *", tz="Europe/Zurich"), name="backup")
@scheduler.job(Cron("30 3 * * MON-FRI", tz="Europe/Zurich"), name="export")
@scheduler.job(Cron("0 * * * *"), name="hourly sync")
@scheduler.job(Cron("0 6 1 * *"), name="monthly report", queue="reports")
async def work():
    await anyio.sleep(0.2)
"""

MANY = """
from clepsydra import Every, Job, Scheduler, Task


async def sync(tenant):
    pass


task = Task(sync, "sync")
scheduler = Scheduler(name="many", tasks=[task], jobs=[
    Job(f"tenant-{number:05}", task.call(tenant=number), Every(60 + number % 3600)) for number in range(10_000)
])
"""


NIGHTLY = """
from clepsydra import Cron, Scheduler

scheduler = Scheduler()
ZONE = "Europe/Zurich"


@scheduler.job(Cron("30 2 * * *", tz=ZONE), name="backup")
@scheduler.job(Cron("0 3 * * *", tz=ZONE), name="clean up")
@scheduler.job(Cron("0 3 * * MON-FRI", tz=ZONE), name="export")
@scheduler.job(Cron("*/15 8-18 * * MON-FRI", tz=ZONE), name="sync")
@scheduler.job(Cron("0 7 1 * *", tz=ZONE), name="monthly report")
async def work():
    pass
"""


CRONTAB = """\
CRON_TZ=Europe/Zurich
# name: heartbeat
@secondly echo still here
30 3 * * MON-FRI backup-database --to /var/backups
@daily clean-up
"""


DECLARED = """
tasks = ["jobs"]

[jobs.digest]
task = "jobs.digest"
schedule = { cron = "0 7 * * MON-FRI", tz = "Europe/Zurich" }
retry = 3

[jobs.probe]
task = "jobs.probe"
schedule = { every = { minutes = 10 }, except = "* 12 * * *" }

[jobs.backup]
task = "jobs.work"
schedule = { cron = "30 2 * * *", tz = "Europe/Zurich" }
"""


@frozen
class Scene:
    """A command in a terminal of some size, keys after so many seconds, and when the picture is taken."""

    command: Sequence[str]
    columns: int
    lines: int
    seconds: float
    keys: Sequence[tuple[float, bytes]] = ()
    ends: bool = False
    """Whether the command ends by itself, and the picture is of what it has printed."""
    after: float = 0.0
    """Seconds for which the jobs have run before."""


SCENES = {
    "run": Scene(("run", "jobs:scheduler"), 80, 24, 14),
    "run-wide": Scene(("run", "jobs:scheduler"), 160, 30, 14),
    "run-job": Scene(("run", "jobs:scheduler"), 80, 24, 14, [(9, b"/feeds"), (10, b"\r")]),
    "run-many": Scene(("run", "many:scheduler"), 80, 24, 10),
    "simulate": Scene(
        ("simulate", "nightly:scheduler", "--from", "2027-03-01", "--to", "2027-04-01", "--tz", "Europe/Zurich",
         "--assume", "20m"),
        100, 40, 120, ends=True,
    ),
    "job": Scene(("job", "feeds", "--store", "jobs.db"), 100, 40, 30, ends=True, after=45),
    "jobs": Scene(("jobs", "--store", "jobs.db"), 80, 24, 30, ends=True, after=12),
    "check": Scene(("check", "clepsydra.toml"), 100, 24, 30, ends=True),
    "crontab": Scene(("crontab", "crontab"), 128, 12, 7),
}  # fmt: skip


def main(names: Sequence[str]) -> int:
    """Take the pictures of these scenes, or of all."""
    PICTURES.mkdir(exist_ok=True)
    for name in names or SCENES:
        print(f"  {name}", file=sys.stderr)
        screen, folder = play(SCENES[name])
        (PICTURES / f"{name}.svg").write_text(
            svg(screen, f"clepsydra {SCENES[name].command[0]}", folder), encoding="utf-8"
        )
    return 0


def play(scene: Scene) -> tuple[pyte.Screen, str]:
    """Run the scene's command, and give the screen as it is when the time has come, and where it ran."""
    screen = pyte.Screen(scene.columns, scene.lines)
    stream = pyte.ByteStream(screen)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jobs.py").write_text(JOBS, encoding="utf-8")
        Path(folder, "many.py").write_text(MANY, encoding="utf-8")
        Path(folder, "nightly.py").write_text(NIGHTLY, encoding="utf-8")
        Path(folder, "crontab").write_text(CRONTAB, encoding="utf-8")
        Path(folder, "clepsydra.toml").write_text(DECLARED, encoding="utf-8")
        if scene.after:
            _run_jobs(folder, scene.after)
        terminal, program = _started(scene, folder)
        began = time.monotonic()
        keys = list(scene.keys)
        while time.monotonic() - began < scene.seconds:
            if keys and time.monotonic() - began >= keys[0][0]:
                os.write(terminal, keys.pop(0)[1])
            if not _read(terminal, stream) and program.poll() is not None:
                break
        if program.poll() is None:
            program.send_signal(signal.SIGTERM)
            program.send_signal(signal.SIGTERM)
        while program.poll() is None:
            _read(terminal, pyte.ByteStream(pyte.Screen(1, 1)))
        os.close(terminal)
    return screen, folder


def _run_jobs(folder: str, seconds: float) -> None:
    """Let the jobs run, so that their store has something to show."""
    command = [sys.executable, "-m", "clepsydra", "run", "jobs:scheduler", "--quiet"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        time.sleep(seconds)
        program.send_signal(signal.SIGTERM)


def _started(scene: Scene, folder: str) -> tuple[int, subprocess.Popen[bytes]]:
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", scene.lines, scene.columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PAGER": "cat"}
    command = [sys.executable, "-m", "clepsydra", *scene.command]
    program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment)
    os.close(theirs)
    return terminal, program


def _read(terminal: int, stream: pyte.ByteStream) -> bool:
    """Whether there was anything."""
    ready, _, _ = select.select([terminal], [], [], 0.1)
    if not ready:
        return False
    try:
        data = os.read(terminal, 65_536)
    except OSError:
        return False
    stream.feed(data)
    return bool(data)


# --- drawing --------------------------------------------------------------------------------------------------------


def svg(screen: pyte.Screen, title: str, folder: str) -> str:
    """The screen as a picture, a run of equal cells as one text. The folder is called as one of an app."""
    lines = screen.lines
    while lines > 1 and not screen.display[lines - 1].strip():
        lines -= 1
    width, height = round(screen.columns * CELL + 24), lines * LINE + 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_styles()}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
        *(f'<circle cx="{18 + 18 * n}" cy="16" r="5" class="dot"/>' for n in range(3)),
    ]
    for row in range(lines):
        for start, text, cell in _runs(screen, row):
            parts.append(_text(start, row, text.replace(folder, "/srv/app"), cell))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _styles() -> str:
    font = f"text{{font:{SIZE}px {_FONT};white-space:pre}}.bold{{font-weight:bold}}"
    return f"{font}{_theme('light', _LIGHT)}@media (prefers-color-scheme:dark){{{_theme('dark', _DARK)}}}"


def _theme(name: str, colours: dict[str, str]) -> str:
    paper, ink, dim = _PAPER[name]
    fills = {"text": ink, ".dim": dim} | {f".{colour}": value for colour, value in colours.items()}
    rules = "".join(f"{which}{{fill:{value}}}" for which, value in fills.items())
    return f".paper{{fill:{paper};stroke:{dim}}}.dot{{fill:{dim};opacity:.5}}{rules}"


def _runs(screen: pyte.Screen, row: int) -> Iterator[tuple[int, str, tuple[str, bool]]]:
    """Stretches of one look, without long gaps: renderers disagree on those."""
    line = screen.buffer[row]
    looks = [(line[column].fg, line[column].bold) for column in range(screen.columns)]
    text = "".join(line[column].data for column in range(screen.columns))
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and looks[end] == looks[start]:
            end += 1
        for part in re.finditer(r"\S+( \S+)*", text[start:end]):
            yield start + part.start(), part.group(), looks[start]
        start = end


def _text(start: int, row: int, text: str, look: tuple[str, bool]) -> str:
    colour, bold = look
    known = {"bold": bold, colour: colour in _LIGHT, "dim": colour == "brightblack"}
    classes = [name for name, wanted in known.items() if wanted]
    said = f' class="{" ".join(classes)}"' if classes else ""
    x, y = 12 + start * CELL, 48 + row * LINE
    return f'<text x="{x:.1f}" y="{y}" textLength="{len(text) * CELL:.1f}"{said}>{escape(text)}</text>'


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
