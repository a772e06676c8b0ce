"""Each assumption broken on purpose is noticed under its own name, and nothing else is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import PermanentError
from blocks.evidence.findings import CATALOGUE, Category
from blocks.evidence.record import STAGES
from deployments.lab import galera
from deployments.lab.drills import BOARDS, Board
from deployments.lab.drills.board import ETCD, GALERA, POSTGRES, STANDBYS
from flows.drill import CONTROL, combinations, shared
from tests.conftest import missing
from tests.flows.conftest import CHECKOUT


def run(api: str, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`python -m flows.drill` in a lab of its own, with the tests' Prefect server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FARSIDE_"))}
    more = {
        "FARSIDE_LAB": str(folder / "drills"),
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "drills-prefect"),
    }
    return subprocess.run(
        [sys.executable, "-m", "flows.drill", *words],
        cwd=CHECKOUT,
        env=kept | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_assumption_has_a_drill_or_a_reason(board: Board) -> None:
    assert set(board.drills) | set(board.undrilled) == set(CATALOGUE)
    assert not set(board.drills) & set(board.undrilled)
    assert {drill.stage for drill in board.drills.values()} <= set(STAGES)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_drills_that_share_a_rehearsal_leave_each_other_alone(board: Board) -> None:
    shared = [id for group in board.together for id in group]
    assert len(shared) == len(set(shared))
    assert set(shared) <= set(board.drills)


@pytest.mark.parametrize("plan", BOARDS)
def test_the_same_seed_gives_the_same_combinations(plan: str) -> None:
    chosen = combinations(20, 7, plan)
    assert chosen == combinations(20, 7, plan)
    assert {part for item in chosen for part in item.split("+")} <= set(BOARDS[plan].drills)
    assert {len(set(item.split("+"))) for item in chosen} == {2, 3}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name drills, or give --all"),
        (("no-such",), "no drill no-such; --list shows them"),
        (("key-stale+no-such",), "no drill no-such"),
        (("--plan", "etcd", "page-corrupt"), "no drill page-corrupt"),
        (
            ("--plan", "no-such", "--all"),
            "no drills for plan 'no-such', only for postgres, etcd, galera",
        ),
    ],
)
def test_bad_usage(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = run("http://127.0.0.1:1/api", tmp_path, *words)
    assert (done.returncode, says in done.stderr) == (64, True), done.stderr
    assert not (tmp_path / "drills-drills").exists()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plan", [*POSTGRES, *ETCD])
def test_the_whole_board(
    prefect_server: Callable[[], str], open_directory: Path, plan: str
) -> None:
    """Every assumption is broken, some by themselves, the others with those they leave alone."""
    drilled = all_are_noticed(prefect_server, open_directory, plan, "--all", "--together")
    assert drilled == {CONTROL, *BOARDS[plan].drills}


@pytest.mark.timeout(1800)
def test_standbys_notice_what_one_server_cannot_break(
    prefect_server: Callable[[], str], open_directory: Path
) -> None:
    drilled = all_are_noticed(prefect_server, open_directory, *STANDBYS, *shared(*STANDBYS))
    assert drilled == set(BOARDS["standbys"].drills)


@pytest.mark.timeout(1800)
def test_galera_notices_another_topology(
    prefect_server: Callable[[], str], open_directory: Path
) -> None:
    """By ways of its own: drills of topology that it shares with others are on their boards."""
    try:
        galera.check()
    except PermanentError as error:
        missing(error.message)
    drills = BOARDS["galera"].drills
    own = {
        id
        for id, row in CATALOGUE.items()
        if row.category is Category.TOPOLOGY
        and id in drills
        and drills[id] is not BOARDS["postgres"].drills.get(id)
    }
    assert {"node-count-differs", "node-identity-reused", "peer-list-stale"} < own
    groups = [id for id in shared(*GALERA) if own.intersection(id.split("+"))]
    assert all_are_noticed(prefect_server, open_directory, *GALERA, *groups) >= own


def all_are_noticed(
    prefect_server: Callable[[], str], open_directory: Path, plan: str, *words: str
) -> set[str]:
    """Drill in a lab of its own; the drills, if each is noticed and nothing is found beside it."""
    of_plan = ("--plan", plan, "--json")
    done = run(prefect_server(), open_directory, *words, *of_plan)
    outcomes = {item["id"]: item for item in json.loads(done.stdout)}
    assert done.returncode in (0, 1), done.stderr
    # What a busy machine has spoilt is good by itself; what is not is broken.
    if spoilt := [id for id, item in outcomes.items() if not good(item)]:
        again = run(prefect_server(), open_directory, *spoilt, *of_plan)
        outcomes |= {item["id"]: item for item in json.loads(again.stdout)}
    bad = [item for item in outcomes.values() if not good(item)]
    assert bad == [], done.stderr
    assert not (open_directory / "drills-drills").exists()
    return {part for id in outcomes for part in id.split("+")}


def good(outcome: dict[str, Any]) -> bool:
    """As the board judges; here nothing may hide another thing, either."""
    return not any(outcome[part] for part in ("missed", "hidden", "others", "left", "problem"))
