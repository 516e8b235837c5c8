"""A cron in words that somebody who reads no cron would understand."""

from __future__ import annotations

import pytest

from clepsydra.model.cron import Cron


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/7 * * * *", "every 7th minute"),
        ("10/20 * * * *", "every 20th minute from 10"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("0 * * * *", "at minute 0 of every hour"),
        ("15,30 10 * * * *", "at seconds 15 and 30 of minute 10 of every hour"),
        ("1,2,3 * * * * *", "at seconds 1, 2 and 3 of every minute"),
        ("30 */5 * * * *", "at second 30 of every 5 minutes"),
        ("0 */2 * * *", "at minute 0 past every 2nd hour"),
        ("15,45 8-18 * * MON-FRI", "at minutes 15 and 45 past hours 8 to 18 on Monday to Friday"),
        ("*/15 9-17 * * 1-5", "every 15 minutes during hours 9 to 17 on Monday to Friday"),
        ("0 9-17/2 * * *", "at minute 0 past every 2nd hour from 9 to 17"),
        ("@daily", "every day at 00:00"),
        ("0 9,17 * * *", "every day at 09:00 and 17:00"),
        ("30 0 9 * * *", "every day at 09:00:30"),
        ("5 4 * * 7", "at 04:05 on Sunday"),
        ("0 0 1 * *", "at 00:00 on the 1st"),
        ("0 0 1-5,22 */3 *", "at 00:00 on the 1st to the 5th and the 22nd in every 3rd month from January"),
        ("0 0 1,15 * FRI", "at 00:00 on the 1st and the 15th and also on Friday"),
        ("0 0 11,12,13 * *", "at 00:00 on the 11th, the 12th and the 13th"),
        ("0 0 */10 * *", "at 00:00 on every 10th day from the 1st"),
        ("0 0 * JAN,JUL FRI#2", "at 00:00 on the 2nd Friday of the month in January and July"),
        ("0 0 * * FRIL", "at 00:00 on the last Friday of the month"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 L-3 * *", "at 00:00 on the 3rd day before the last of the month"),
        ("0 0 LW * *", "at 00:00 on the last weekday of the month"),
        ("0 0 15W * *", "at 00:00 on the weekday nearest to the 15th"),
        ("0 0 0 1 1 * 2027-2030", "at 00:00 on the 1st in January in years 2027 to 2030"),
        ("H/15 * * * *", "every 15th minute from one drawn from the job's name"),
        ("0 H(2-4) * * *", "every day at minute 0 past an hour from 2 to 4 drawn from the job's name"),
        ("*,5 */1 * * *", "every minute"),
    ],
)
def test_a_cron_in_words(expr: str, words: str) -> None:
    described = Cron(expr, tz="Europe/Zurich").describe()

    assert described == f"{words}, Europe/Zurich time"


def test_reboot_has_no_zone() -> None:
    assert Cron("@reboot").describe() == "at each start of the scheduler"
