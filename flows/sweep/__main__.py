"""The command `python -m flows.sweep`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flows.command import run
from flows.server import end_orphaned_servers
from flows.sweep import swept_of
from tasks.reporting.units import printable
from tasks.sweep import Swept

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def command(
    plan: Annotated[str, typer.Argument(help="Plan file, saved block, or lab plan")] = "postgres",
    everything: Annotated[
        bool, typer.Option("--all", help="Also rehearsals that still run, or were kept.")
    ] = False,
    results: Annotated[
        Path,
        typer.Option(
            help="Folder of the records: those of killed rehearsals are written there, and those "
            "there say which sets are verified."
        ),
    ] = Path("rehearsals"),
    expire: Annotated[
        bool,
        typer.Option(
            "--expire", help="Also backup sets, in both stores, that retention does not keep."
        ),
    ] = False,
) -> None:
    """Remove what a killed rehearsal left behind, and prove it; write down how far it came.

    Exit codes: 0 nothing is left; 1 something could not be removed; 64 bad usage or plan.
    """
    servers = end_orphaned_servers()
    swept = swept_of(plan, everything, results, expire=expire)
    _tell(replace(swept, removed=(*servers, *swept.removed)))
    raise typer.Exit(1 if swept.remaining else 0)


def _tell(swept: Swept) -> None:
    for text in swept.recorded:
        typer.echo(f"recorded   {printable(text)}")
    for text in swept.removed:
        typer.echo(f"removed    {printable(text)}")
    for text in swept.expired:
        typer.echo(f"expired    {printable(text)}")
    for text in swept.kept:
        typer.echo(f"kept       {printable(text)}")
    for text in swept.alive:
        typer.echo(f"left alone {printable(text)}")
    for text in swept.remaining:
        typer.echo(f"REMAINS    {printable(text)}")
    if swept == Swept((), (), ()):
        typer.echo("nothing to remove")


if __name__ == "__main__":
    run(app, "python -m flows.sweep")
