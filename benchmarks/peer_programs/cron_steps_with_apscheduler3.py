"""APScheduler 3.11's cron trigger, timed: `cron_steps_with_apscheduler3.py cron_steps SIZE`.

The trigger made with `from_crontab`, and asked for its next time with the last one, as its scheduler does.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from crons import start, timed

CronTrigger: Any = importlib.import_module("apscheduler.triggers.cron").CronTrigger  # of an environment of its own


def parse(text: str, zone: str) -> Any:
    """A trigger."""
    return CronTrigger.from_crontab(text, timezone=ZoneInfo(zone))


def make(text: str, zone: str) -> Callable[[], object]:
    """From time to time."""
    trigger, at = parse(text, zone), start(zone)

    def step() -> None:
        nonlocal at
        at = trigger.get_next_fire_time(at, at + timedelta(microseconds=1))

    return step


if __name__ == "__main__":
    print(json.dumps(timed(parse, make, int(sys.argv[2]))))
