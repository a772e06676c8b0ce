"""Prove that a rehearsal notices: `python -m flows.drill --list | ID ... | --all`.

Each drill breaks one assumption in the lab, and then runs the ordinary rehearsal.
"""

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.engines.registry import catalogue
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding
from blocks.evidence.record import STAGES, Record, StageState, Verdict
from deployments import lab
from deployments.lab.drills import BOARDS, ONE_PART, Drill, Ground
from deployments.lab.places import DEFAULT_NETWORK, Network, Places, default_root
from flows.rehearse import Watcher, rehearse, watching

PLAN = "postgres"
CONTROL = "control"
"""The rehearsals of a lab in which nothing is broken: they must find nothing."""
SCALE = 1
"""pgbench's, for a lab of drills: what is broken shows in a small database as well."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one drill, or of several at once (`one+another`).

    `stage` is the one that noticed, the last if there are several, `seconds` from the rehearsal's
    start to its end. `missed` were to be noticed and were not; `hidden` could not be: the rehearsal
    ended, for another of them, before the stage that can see it. `others` are findings beside the
    right ones, or in another stage than they are due, each as `id: subject`.
    """

    id: str
    missed: tuple[str, ...]
    hidden: tuple[str, ...]
    stage: str | None
    seconds: float | None
    others: tuple[str, ...]
    left: tuple[str, ...]
    took: float
    problem: str = ""

    @property
    def good(self) -> bool:
        """Noticed under its own id, nothing else found, nothing left behind."""
        return not (self.missed or self.others or self.left or self.problem)


@flow(name="drill", persist_result=False)
def drill(
    ids: list[str] | None = None, plan: str = PLAN, network: Network = DEFAULT_NETWORK
) -> State[Any]:
    """Run drills (all, if none is named) in a lab of their own; fails unless all are good."""
    with tempfile.TemporaryDirectory(prefix="farside-drill-") as folder:
        outcomes = list(drilled(ids or [CONTROL, *every(plan)], Path(folder), plan, network))
    bad = [item.id for item in outcomes if not item.good]
    text = f"{len(outcomes) - len(bad)} of {len(outcomes)} drills were noticed and nothing else"
    return Failed(message=f"{text}; not {', '.join(bad)}") if bad else Completed(message=text)


def drilled(
    ids: Iterable[str], folder: Path, plan: str, network: Network = DEFAULT_NETWORK
) -> Iterator[Outcome]:
    """Break and rehearse, one after the other, in one lab, which is then taken down.

    Raises FarsideError where the lab cannot be made, or is not whole to begin with.
    """
    root = drill_root()
    lab.down(root)  # what a board that was killed has left broken
    lab.up(root, scale=SCALE, parts=lab.parts_of(plan), network=network)
    try:
        ground = Ground(Places.at(root), folder, plan)
        # Leaves the set that the drills of retained backups are about.
        first = _rehearsed(ground, "fresh")
        if first.verdict is not Verdict.VERIFIED:
            found = "; ".join(f"{item.id}: {item.evidence}" for item in _counted(first))
            raise FarsideError(f"a whole lab is not verified: {found}", operation="drill")
        for drill_id in ids:
            yield _control(ground) if drill_id == CONTROL else _drilled(ground, drill_id)
        ground.close()
    finally:
        lab.down(root)


def drill_root() -> Path:
    """Where the drills' lab is: beside the one that is rehearsed in."""
    root = default_root()
    return root.with_name(f"{root.name}-drills")


def _control(ground: Ground) -> Outcome:
    began = time.monotonic()
    records = [_rehearsed(ground, "latest"), _rehearsed(ground, "fresh")]
    ground.forget(ground.newest())
    found = [f"{i.id}: {i.subject}" for record in records for i in _counted(record)]
    problem = "; ".join(r.verdict.value for r in records if r.verdict.value != "verified")
    took = round(time.monotonic() - began, 1)
    left = tuple(ground.left())
    return Outcome(CONTROL, (), (), None, None, tuple(found), left, took, problem)


def _drilled(ground: Ground, drill_id: str) -> Outcome:
    began, before = time.monotonic(), set(ground.sets())
    drills = [BOARDS[ground.name].drills[part] for part in drill_id.split("+")]
    record, problem = None, ""
    ground.reset()
    try:
        with ExitStack() as stack:
            for item in drills:
                stack.enter_context(item.broken(ground))
            select = "fresh" if any(item.select == "fresh" for item in drills) else "latest"
            record = _rehearsed(ground, select)
    except Exception as error:  # noqa: BLE001 (the lab could not be broken, or mended: the others go on)
        problem = f"{type(error).__name__}: {error}"
    finally:
        ground.close()
        ground.heal()
        for set_id in set(ground.sets()) - before:
            ground.forget(set_id)
    took = round(time.monotonic() - began, 1)
    if record is None:
        return Outcome(
            drill_id, tuple(item.id for item in drills), (), None, None, (), (), took, problem
        )
    judged = _judged(drill_id, drills, record, tuple(ground.left()), took)
    return replace(judged, problem=problem)


def _judged(
    drill_id: str, drills: Sequence[Drill], record: Record, left: tuple[str, ...], took: float
) -> Outcome:
    wanted = {item.id: item.stage for item in drills}
    mine = [found for found in _counted(record) if found.id in wanted]
    absent = sorted(set(wanted) - {found.id for found in mine})
    ran = {stage.name for stage in record.stages if stage.state is StageState.COMPLETED}
    hidden = [name for name in absent if mine and wanted[name] not in ran]
    stages = [found.stage for found in mine]
    last = max(stages, key=STAGES.index) if stages else None
    return Outcome(
        drill_id,
        tuple(name for name in absent if name not in hidden),
        tuple(hidden),
        last,
        _soon(record, last) if last else None,
        tuple(f"{i.id}: {i.subject}" for i in _counted(record) if wanted.get(i.id) != i.stage),
        left,
        took,
    )


def _counted(record: Record) -> list[Finding]:
    """What was found; risks that the plan accepts are none."""
    return [item for item in record.findings if item.accepted is None]


def _rehearsed(ground: Ground, select: str) -> Record:
    """The ordinary rehearsal of the ground's plan. Raises FarsideError where there is no record."""
    with watching(Watcher()) as watcher:
        rehearse(
            plan=str(ground.write()),
            select=select,
            results=str(ground.folder / "records"),
            return_state=True,
        )
    if watcher.record is None:
        raise FarsideError("the rehearsal ended without a record", operation="drill")
    return watcher.record


def _soon(record: Record, stage: str) -> float | None:
    ended = next((s.ended_at for s in record.stages if s.name == stage), None)
    return None if ended is None else round((ended - record.started_at).total_seconds(), 1)


def every(plan: str) -> list[str]:
    """All drills of a plan, in the order of the catalogue."""
    return [drill_id for drill_id in catalogue() if drill_id in BOARDS[plan].drills]


def shared(plan: str) -> list[str]:
    """All drills of a plan, as ONE+ANOTHER those that can share a rehearsal."""
    together = BOARDS[plan].together
    joined = {drill_id for group in together for drill_id in group}
    return ["+".join(group) for group in together] + [
        drill_id for drill_id in every(plan) if drill_id not in joined
    ]


def combinations(count: int, seed: int, plan: str = PLAN) -> list[str]:
    """Pairs and triples of drills, each as ONE+ANOTHER, the same for the same seed."""
    chosen, found = random.Random(seed), list[str]()
    while len(found) < count:
        ids = chosen.sample(list(BOARDS[plan].drills), chosen.choice((2, 3)))
        if all(len(part.intersection(ids)) < 2 for part in ONE_PART):
            found.append("+".join(ids))
    return found
