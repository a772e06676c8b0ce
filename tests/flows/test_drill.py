"""Each assumption broken on purpose is noticed under its own name, and nothing else is."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from blocks.engines.registry import catalogue
from blocks.errors import PermanentError
from blocks.evidence.catalogue import Category
from blocks.evidence.record import STAGES
from deployments.lab.drills import BOARDS, Board
from deployments.lab.parts import galera
from flows.command import outcome
from flows.drill import CONTROL, combinations, shared
from flows.drill.__main__ import app
from tests import mechanisms
from tests.conftest import missing
from tests.flows.conftest import CHECKOUT
from tests.servers import PrefectServer


def run(api: str, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`python -m flows.drill` in a lab of its own, with the tests' Prefect server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FARSIDE_"))}
    more = {
        "FARSIDE_LAB_LOAD": os.environ["FARSIDE_LAB_LOAD"],
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
    assert set(board.drills) | set(board.undrilled) == set(catalogue())
    assert not set(board.drills) & set(board.undrilled)
    assert {drill.stage for drill in board.drills.values()} <= set(STAGES)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_drills_that_share_a_rehearsal_leave_each_other_alone(board: Board) -> None:
    shared = [drill_id for group in board.together for drill_id in group]
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
def test_bad_usage(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setenv("FARSIDE_LAB", str(tmp_path / "drills"))
    monkeypatch.setattr("sys.argv", ["drill", *words])
    code, said = outcome(app, "python -m flows.drill"), capsys.readouterr().err
    assert (code, says in said) == (64, True), said
    assert not (tmp_path / "drills-drills").exists()


SECONDS = {"postgres": 45, "etcd": 45, "standbys": 120, "galera": 180}
"""What one drilled rehearsal takes, other tests beside it."""


def parts(plan: str, wanted: list[str]) -> list[Any]:
    """A board in parts of one or two rehearsals, each for a lab, and perhaps a worker.

    Drills of one part are far from each other on the board: neighbours cost alike, and break the
    same kind of thing.
    """
    most = 2 if SECONDS[plan] < 60 else 1
    count = -(-len(wanted) // most)
    return [
        pytest.param(
            plan,
            wanted[number::count],
            id=f"{plan}-{number + 1}-of-{count}",
            marks=[
                pytest.mark.slow(SECONDS[plan] * most),
                pytest.mark.timeout(1800),
                pytest.mark.xdist_group(f"{plan}-{number}"),
                mechanisms.DRILLS,
            ],
        )
        for number in range(count)
    ]


def of_galera() -> list[str]:
    """What Galera notices by ways of its own: drills that it shares are on other boards."""
    drills = BOARDS["galera"].drills
    own = {
        drill_id
        for drill_id, row in catalogue().items()
        if row.category is Category.TOPOLOGY
        and drill_id in drills
        and drills[drill_id] is not BOARDS["postgres"].drills.get(drill_id)
    }
    assert {"node-count-differs", "node-identity-reused", "peer-list-stale"} < own
    return [drill_id for drill_id in shared("galera") if own.intersection(drill_id.split("+"))]


BOARD_OF = {
    **{plan: [CONTROL, *shared(plan)] for plan in ("postgres", "etcd")},
    "standbys": shared("standbys"),
    "galera": of_galera(),
}


@pytest.mark.parametrize(
    ("plan", "drills"),
    [part for plan in BOARD_OF for part in parts(plan, BOARD_OF[plan])],
)
def test_every_drill_of_the_board(
    prefect: PrefectServer, open_directory: Path, plan: str, drills: list[str]
) -> None:
    """Every assumption is broken, some by themselves, the others with those they leave alone."""
    if plan == "galera":
        try:
            galera.PART.check()
        except PermanentError as error:
            missing(error.message)
    folder = Path(tempfile.mkdtemp(prefix="drills-", dir=open_directory))
    folder.chmod(0o711)
    outcomes = drilled(prefect, folder, plan, drills)
    # What a busy machine has spoilt is good by itself; what is not is broken.
    if spoilt := [drill_id for drill_id, item in outcomes.items() if not good(item)]:
        outcomes |= drilled(prefect, folder, plan, spoilt)
    assert [item for item in outcomes.values() if not good(item)] == []
    assert set(outcomes) == set(drills)
    assert not (folder / "drills-drills").exists()


def drilled(
    prefect: PrefectServer, folder: Path, plan: str, drills: list[str]
) -> dict[str, dict[str, Any]]:
    """Drill in a lab of its own: what came of each."""
    done = run(prefect.ready(), folder, *drills, "--plan", plan, "--json")
    assert done.returncode in (0, 1), done.stderr
    return {item["id"]: item for item in json.loads(done.stdout)}


def good(outcome: dict[str, Any]) -> bool:
    """As the board judges; here nothing may hide another thing, either."""
    return not any(outcome[part] for part in ("missed", "hidden", "others", "left", "problem"))
