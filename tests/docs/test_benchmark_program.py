"""The benchmark program takes turns, compares, holds the bars beside what it measured, and publishes failures, too."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not installed")

QUESTION = '''"""How much is it?

Claim: ours costs
half as much.

    python how_much.py
"""

import time

import peers
import side_by_side
from contenders import Bar, limit, peer


def ours(size):
    """As it is."""
    return {"cost, ms": 2.0 * size, "tail, ms": 30.0 * size}


def gone(size):
    raise peers.PeerMissingError("there is no such version")


def broken(size):
    raise SystemExit("the ledger does not balance")


def slow(size):
    """For ever."""
    time.sleep(1e6)


side_by_side.groups(
    "how much",
    {
        "here": {
            "clepsydra": ours,
            "theirs": peer(lambda size: {"cost, ms": 4.0 * size}, "anyio", "as its users do", most=10),
            "gone": peer(gone, "", "never"),
            "bare loop": limit(lambda size: {"cost, ms": 0.5 * size}, "a loop"),
        },
        "there": {"clepsydra": broken},
        "slowly": {"clepsydra": ours, "slow": peer(slow, "", "as it comes", most=100)},
    },
    size=(1, 100),
    rounds=1,
    bars=[
        Bar(measure="cost, ms", at_most=1 / 2, beside="theirs", group="here"),
        Bar(measure="cost, ms", at_most=3, beside="bare loop", group="here"),
        Bar(measure="tail, ms", at_most=20, than="cost, ms", group="here"),
        Bar(measure="cost, ms", at_least=100, group="here"),
        Bar(measure="cost, ms", at_most=1, beside="gone", group="here"),
    ],
)
'''


@frozen
class Run:
    """What the question above said, and what it published."""

    folder: Path
    code: int
    told: str
    results: dict[str, Any]
    page: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("benchmarks")
    script = folder / "how_much.py"
    script.write_text(QUESTION, "utf-8")
    done = python(str(script), "--group", "here", "--group", "there", "--results", str(folder))
    results = json.loads((folder / "how_much.json").read_text("utf-8"))
    return Run(folder, done.returncode, done.stderr, results, (folder / "how_much.md").read_text("utf-8"))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_medians_are_told_as_multiples_of_ours_and_of_the_limit(run: Run) -> None:
    (cost, _) = run.results["groups"][0]["tables"]

    rows = {(row["contender"], row["size"]): (row["median"], row["to_ours"], row["to_limit"]) for row in cost["rows"]}

    assert rows == {
        ("clepsydra", 1): (2, 1, 4),
        ("clepsydra", 100): (200, 1, 4),
        ("theirs", 1): (4, 2, 8),  # larger sizes would take it too long
        ("bare loop", 1): (0.5, 0.25, 1),
        ("bare loop", 100): (50, 0.25, 1),
    }


def test_each_bar_stands_beside_what_was_measured_in_the_same_run(run: Run) -> None:
    bars = [(bar["size"], bar["measured"], bar["wanted"], bar["reached"]) for bar in run.results["bars"]]

    assert bars == [
        (1, 2, 2, True),  # the largest size that both have
        (100, 200, 150, False),
        (100, 3000, 4000, True),
        (100, 200, 100, True),
        (0, None, None, None),
    ]
    assert "cost, ms: at most 1/2 that of theirs" in run.page
    assert "**not reached**, 1.33 times short of it" in run.page
    assert "reached, 2 times better" in run.page


def test_a_peer_that_is_not_to_be_had_is_told_with_the_reason(run: Run) -> None:
    about = run.results["groups"][0]["contenders"]["gone"]

    assert about["missing"] == "there is no such version"
    assert "**Missing: there is no such version**" in run.page
    assert "here, gone: missing: there is no such version" in run.told


def test_what_fails_fails_the_run_and_is_told(run: Run) -> None:
    about = run.results["groups"][1]["contenders"]["clepsydra"]

    assert run.code == 1
    assert about["failed"] == "at size 100: the ledger does not balance"
    assert "there, clepsydra: FAILED: at size 100: the ledger does not balance" in run.told


def test_a_peer_that_does_not_end_is_told_and_asked_no_more(run: Run, tmp_path: Path) -> None:
    asked = ["--group", "slowly", "--patience", "1", "--rounds", "2", "--size", "1", "100", "1000"]

    done = python(str(run.folder / "how_much.py"), *asked, "--results", str(tmp_path))

    about = json.loads((tmp_path / "how_much.json").read_text("utf-8"))["groups"][0]["contenders"]["slow"]
    assert "slowly, slow: not finished: at size 1 within 1 s" in done.stderr
    assert about["unfinished"] == "at size 1 within 1 s"
    assert not about["failed"]
    assert about["configured"] == "as it comes Measured up to 100: more would take it too long."
    assert "**Not finished: at size 1 within 1 s**" in (tmp_path / "how_much.md").read_text("utf-8")


def test_there_are_as_many_rounds_as_there_is_time_for(run: Run, tmp_path: Path) -> None:
    asked = ["--group", "here", "--contender", "theirs", "--rounds", "3"]
    bound = ["--within", "0.001"]

    done = python(str(run.folder / "how_much.py"), *asked, *bound, "--results", str(tmp_path))

    assert done.returncode == 0, done.stderr
    told = "Rounds, where there was no time for 3: 1 of size 1, 1 of size 100."
    assert told in (tmp_path / "how_much.md").read_text("utf-8")


def test_a_size_may_have_fewer_rounds_than_the_others(run: Run, tmp_path: Path) -> None:
    asked = ["--group", "here", "--contender", "theirs", "--rounds", "2", "--rounds-of", "100=1"]

    done = python(str(run.folder / "how_much.py"), *asked, "--results", str(tmp_path))

    assert "[5 of 5, " in done.stderr
    told = "Rounds, where there was no time for 2: 1 of size 100."
    assert told in (tmp_path / "how_much.md").read_text("utf-8")


def test_the_page_says_what_a_figure_needs_to_mean_something(run: Run) -> None:
    assert run.results["claim"] == "Claim: ours costs half as much."
    assert {"processor", "cores", "memory", "Python", "load before", "load after"} <= run.results["machine"].keys()
    assert run.results["groups"][0]["contenders"]["theirs"]["version"]
    assert "as its users do" in run.page


def test_progress_tells_how_far_it_is_and_how_long_it_will_take(run: Run) -> None:
    assert "[1 of 9, " in run.told
    assert "[9 of 9, " in run.told
    assert " left] " in run.told


def test_a_part_of_a_run_is_not_published(run: Run) -> None:
    done = python(str(run.folder / "how_much.py"), "--contender", "bare loop", "--size", "1", "--group", "here")

    assert done.returncode == 0, done.stderr
    assert "not published" in done.stderr
    assert "bare loop" in done.stdout


def test_the_index_leads_to_the_page(run: Run) -> None:
    index = (run.folder / "README.md").read_text("utf-8")

    assert "[how much](how_much.md)" in index
    assert "3 of 4, 1 not measured" in index


def test_the_plot_is_the_same_for_the_same_results_and_has_light_and_dark_colours(run: Run) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    plot = run.folder / "how_much.svg"
    before = plot.read_text("utf-8")

    done = python(str(BENCHMARKS), "--render", str(run.folder))

    assert done.returncode == 0, done.stderr
    assert plot.read_text("utf-8") == before
    assert "prefers-color-scheme:dark" in before
    assert "#00000" not in before  # the colours it was drawn with
    assert "bare loop" in before


def test_the_questions_are_listed_with_their_claims() -> None:
    done = python(str(BENCHMARKS), "--list")

    assert "fan_out: How late do jobs start" in done.stdout
    assert done.stdout.count("    Claim: ") >= 6


def test_a_question_that_there_is_not_is_refused() -> None:
    done = python(str(BENCHMARKS), "fan_in", "--rounds", "1")

    assert done.returncode == 2
    assert "no question is called fan_in; there are cron_steps, drain" in done.stderr


def test_measures_that_say_at_how_many_are_drawn_as_one_curve(run: Run, tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    told = (
        json.dumps(run.results).replace("cost, ms", "cost at 1,000 jobs, ms").replace("tail, ms", "cost at 9 jobs, ms")
    )
    (tmp_path / "how_much.json").write_text(told, "utf-8")

    done = python(str(BENCHMARKS), "--render", str(tmp_path))

    assert done.returncode == 0, done.stderr
    drawn = (tmp_path / "how_much.svg").read_text("utf-8")
    assert "cost, ms, by jobs" in drawn
    assert "cost at" not in drawn
