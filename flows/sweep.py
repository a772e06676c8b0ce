"""Remove what a killed rehearsal left: `python -m flows.sweep [PLAN]`, or a scheduled flow."""

import sys
from dataclasses import replace
from typing import Annotated

import typer
from prefect import flow
from pydantic import Field

from blocks.errors import FarsideError
from deployments import lab
from flows.server import end_orphaned_servers
from flows.site import is_lab, opened, running_without_source
from tasks.sweeping import Swept, sweep_plan


@flow(name="sweep", persist_result=False)
def sweep(
    plan: Annotated[
        str, Field(description="Name of a lab plan, path of a plan file, or a saved plan block")
    ] = "postgres",
    everything: Annotated[
        bool, Field(description="Also what a rehearsal that still runs has made, or has kept")
    ] = False,
) -> None:
    """Remove what dead rehearsals of a plan left on hosts, in stores and in the source."""
    swept = _swept(plan, everything)
    if swept.remaining:
        raise FarsideError(f"remaining: {'; '.join(swept.remaining)}", operation="sweep")


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def command(
    plan: Annotated[str, typer.Argument(help="Plan file, saved block, or lab plan")] = "postgres",
    everything: Annotated[
        bool, typer.Option("--all", help="Also rehearsals that still run, or were kept.")
    ] = False,
) -> None:
    """Remove what a killed rehearsal left behind, and prove it.

    Exit codes: 0 nothing is left; 1 something could not be removed; 64 bad usage or plan.
    """
    servers = end_orphaned_servers()
    swept = _swept(plan, everything)
    _tell(replace(swept, removed=(*servers, *swept.removed)))
    raise typer.Exit(1 if swept.remaining else 0)


def _swept(plan: str, everything: bool) -> Swept:
    if is_lab(plan):
        if not lab.plan_path(None, plan).exists():
            return Swept((), (), ())  # a lab that is down holds nothing
        if not everything and (alive := running_without_source()):
            return Swept((), alive, ())  # until its end, to look at the source is to call it
    with opened(plan, regardless=True) as site:
        return sweep_plan(site, everything=everything)


def _tell(swept: Swept) -> None:
    for text in swept.removed:
        typer.echo(f"removed    {text}")
    for text in swept.alive:
        typer.echo(f"left alone {text}")
    for text in swept.remaining:
        typer.echo(f"REMAINS    {text}")
    if not (swept.removed or swept.alive or swept.remaining):
        typer.echo("nothing to remove")


if __name__ == "__main__":
    sys.modules["flows.sweep"] = sys.modules["__main__"]
    from flows.command_line import run

    run(app, "python -m flows.sweep")
