"""Prove that a rehearsal notices: `python -m flows.drill --list | ID ... | --all`.

Each drill breaks one assumption in the lab, and then runs the ordinary rehearsal.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocks.errors import FarsideError
from blocks.evidence.findings import CATALOGUE, Finding
from blocks.evidence.record import STAGES, Record, StageState, Verdict
from deployments import lab
from deployments.lab.drills import BOARDS, ONE_PART, Drill, Ground
from deployments.lab.places import DEFAULT_NETWORK, Network, Places, default_root
from flows.command_line import OK, quiet, run
from flows.rehearse import Watcher, rehearse, watching
from flows.server import temporary_server
from tasks.reporting.units import printable

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
        outcomes = list(drilled(ids or [CONTROL, *_all(plan)], Path(folder), plan, network))
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
        for id in ids:
            yield _control(ground) if id == CONTROL else _drilled(ground, id)
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


def _drilled(ground: Ground, id: str) -> Outcome:
    began, before = time.monotonic(), set(ground.sets())
    drills = [BOARDS[ground.name].drills[part] for part in id.split("+")]
    record, problem = None, ""
    ground.reset()
    try:
        with ExitStack() as stack:
            for item in drills:
                stack.enter_context(item.broken(ground))
            select = "fresh" if any(item.select == "fresh" for item in drills) else "latest"
            record = _rehearsed(ground, select)
    except Exception as error:  # the lab could not be broken, or mended: the others go on
        problem = f"{type(error).__name__}: {error}"
    finally:
        ground.close()
        ground.heal()
        for set_id in set(ground.sets()) - before:
            ground.forget(set_id)
    took = round(time.monotonic() - began, 1)
    if record is None:
        return Outcome(id, tuple(item.id for item in drills), (), None, None, (), (), took, problem)
    judged = _judged(id, drills, record, tuple(ground.left()), took)
    return replace(judged, problem=problem)


def _judged(
    id: str, drills: Sequence[Drill], record: Record, left: tuple[str, ...], took: float
) -> Outcome:
    wanted = {item.id: item.stage for item in drills}
    mine = [found for found in _counted(record) if found.id in wanted]
    absent = sorted(set(wanted) - {found.id for found in mine})
    ran = {stage.name for stage in record.stages if stage.state is StageState.COMPLETED}
    hidden = [name for name in absent if mine and wanted[name] not in ran]
    stages = [found.stage for found in mine]
    last = max(stages, key=STAGES.index) if stages else None
    return Outcome(
        id,
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


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def command(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Assumptions to break, see --list; ONE+ANOTHER breaks both at once."),
    ] = None,
    plan: Annotated[
        str, typer.Option(help=f"The lab's plan that is drilled: {' or '.join(BOARDS)}.")
    ] = PLAN,
    network: Annotated[
        Network, typer.Option(help="What the hosts of the lab are; netns is for root.")
    ] = DEFAULT_NETWORK,
    everything: Annotated[
        bool, typer.Option("--all", help="Every drill, and the control: nothing broken.")
    ] = False,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="With --all: several in one rehearsal, where that is fair."
        ),
    ] = False,
    list_them: Annotated[bool, typer.Option("--list", help="Show the drills, run none.")] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="So many pairs and triples besides, chosen at random.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(help="Choose the same ones again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scoreboard as JSON.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show Prefect's own log, too.")] = False,
) -> None:
    """Break one assumption after the other in the lab, and see whether a rehearsal notices.

    Exit codes: 0 each was noticed under its own id, with no finding beside it and nothing left;
    1 one was not; 64 bad usage.
    """
    if list_them:
        _list()
        return
    if plan not in BOARDS:
        raise typer.BadParameter(f"no drills for plan {plan!r}, only for {', '.join(BOARDS)}")
    all_of_it = shared(plan) if together else _all(plan)
    wanted = [CONTROL, *all_of_it] if everything else list(ids or [])
    known = {CONTROL, *BOARDS[plan].drills}
    if unknown := sorted({part for id in wanted for part in id.split("+")} - known):
        raise typer.BadParameter(f"no drill {', '.join(unknown)}; --list shows them")
    if not wanted and not sample:
        raise typer.BadParameter("name drills, or give --all; --list shows them")
    if sample:
        seed = random.randrange(10**6) if seed is None else seed
        Console(stderr=True).print(f"combinations of seed {seed}", style="dim")
        wanted += combinations(sample, seed, plan)
    if not verbose:
        quiet()
    err, outcomes = Console(stderr=True), []
    began = time.monotonic()
    with temporary_server(lambda text: err.print(text, style="dim")):
        pass
    with tempfile.TemporaryDirectory(prefix="farside-drill-") as folder:
        for outcome in drilled(wanted, Path(folder), plan, network):
            outcomes.append(outcome)
            err.print(_line(outcome, f"{len(outcomes)}/{len(wanted)}"), highlight=False)
    if as_json:
        sys.stdout.write(json.dumps([asdict(item) for item in outcomes], indent=2) + "\n")
    Console(stderr=as_json).print(scoreboard(outcomes, time.monotonic() - began))
    raise typer.Exit(OK if all(item.good for item in outcomes) else 1)


def _all(plan: str) -> list[str]:
    """All drills of a plan, in the order of the catalogue."""
    return [id for id in CATALOGUE if id in BOARDS[plan].drills]


def shared(plan: str) -> list[str]:
    """All drills of a plan, as ONE+ANOTHER those that can share a rehearsal."""
    together = BOARDS[plan].together
    joined = {id for group in together for id in group}
    return ["+".join(group) for group in together] + [id for id in _all(plan) if id not in joined]


def combinations(count: int, seed: int, plan: str = PLAN) -> list[str]:
    """Pairs and triples of drills, each as ONE+ANOTHER, the same for the same seed."""
    chosen, found = random.Random(seed), list[str]()
    while len(found) < count:
        ids = chosen.sample(list(BOARDS[plan].drills), chosen.choice((2, 3)))
        if all(len(part.intersection(ids)) < 2 for part in ONE_PART):
            found.append("+".join(ids))
    return found


def _list() -> None:
    table = Table("drill", "plans", "backup", "what is broken", box=None)
    table.add_row(CONTROL, ", ".join(BOARDS), "latest, fresh", "nothing: no finding may come of it")
    for id in CATALOGUE:
        # A row for each way to break it, and for each reason why it cannot be.
        rows: dict[tuple[str, str], list[str]] = {}
        for plan, board in BOARDS.items():
            made = board.drills.get(id)
            row = (made.select, made.what) if made else ("-", f"no drill: {board.undrilled[id]}")
            rows.setdefault(row, []).append(plan)
        for (select, text), plans in rows.items():
            style = "dim" if select == "-" else ""
            table.add_row(id, ", ".join(plans), select, text, style=style)
    Console().print(table)


def _line(outcome: Outcome, count: str) -> str:
    word = "[green]noticed[/]" if outcome.good else "[bold red]NOT GOOD[/]"
    return f"{count:>6}  {word}  {outcome.id}  [dim]{outcome.took:.0f} s[/]"


def scoreboard(outcomes: Sequence[Outcome], seconds: float) -> Table:
    """Every drill with what was noticed, where, how soon, and what was wrong about it."""
    good = sum(item.good for item in outcomes)
    table = Table(
        title=f"{good} of {len(outcomes)} drills are good; {seconds / 60:.1f} min",
        title_justify="left",
        box=None,
    )
    for name in ("drill", "noticed", "in stage", "after", "false findings", "left behind"):
        table.add_column(name, justify="right" if name == "after" else "left", overflow="fold")
    for item in outcomes:
        noticed = "nothing broken" if item.id == CONTROL else "yes"
        if item.missed:
            noticed = f"MISSED {', '.join(item.missed)}"
        elif item.hidden:
            noticed = f"yes; could not be reached: {', '.join(item.hidden)}"
        table.add_row(
            item.id.replace("+", " + "),
            Text(noticed if not item.problem else printable(f"{noticed}: {item.problem}")),
            item.stage or "",
            "" if item.seconds is None else f"{item.seconds:.1f} s",
            Text("\n".join(map(printable, item.others))),
            Text("\n".join(map(printable, item.left))),
            style="" if item.good else "red",
        )
    return table


if __name__ == "__main__":
    sys.modules["flows.drill"] = sys.modules["__main__"]
    run(app, "python -m flows.drill")
