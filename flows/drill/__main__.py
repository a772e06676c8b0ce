"""The command `python -m flows.drill`: run drills, show the scoreboard."""

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocks.engines.registry import catalogue
from deployments.lab.drills import BOARDS
from deployments.lab.places import DEFAULT_NETWORK, Network
from flows.command import OK, quiet, run
from flows.drill import CONTROL, PLAN, Outcome, combinations, drilled, every, shared
from flows.server import temporary_server
from tasks.reporting.units import printable

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def command(  # noqa: PLR0913 (each is an option of the command)
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
    wanted = _wanted(ids or [], plan, everything=everything, together=together)
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


def _wanted(ids: Sequence[str], plan: str, *, everything: bool, together: bool) -> list[str]:
    """The drills that were asked for. Raises BadParameter for one, or a plan, that is none."""
    if plan not in BOARDS:
        raise typer.BadParameter(f"no drills for plan {plan!r}, only for {', '.join(BOARDS)}")
    wanted = [CONTROL, *(shared(plan) if together else every(plan))] if everything else list(ids)
    known = {CONTROL, *BOARDS[plan].drills}
    if unknown := sorted({part for drill_id in wanted for part in drill_id.split("+")} - known):
        raise typer.BadParameter(f"no drill {', '.join(unknown)}; --list shows them")
    return wanted


def _list() -> None:
    table = Table("drill", "plans", "backup", "what is broken", box=None)
    table.add_row(CONTROL, ", ".join(BOARDS), "latest, fresh", "nothing: no finding may come of it")
    for drill_id in catalogue():
        # A row for each way to break it, and for each reason why it cannot be.
        rows: dict[tuple[str, str], list[str]] = {}
        for plan, board in BOARDS.items():
            made = board.drills.get(drill_id)
            row = (
                (made.select, made.what)
                if made
                else ("-", f"no drill: {board.undrilled[drill_id]}")
            )
            rows.setdefault(row, []).append(plan)
        for (select, text), plans in rows.items():
            style = "dim" if select == "-" else ""
            table.add_row(drill_id, ", ".join(plans), select, text, style=style)
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
    run(app, "python -m flows.drill")
