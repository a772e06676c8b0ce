"""`python -m deployments.lab`: the lab by hand.

Exit codes, as of `farside lab`: 0 done, and `status` and `tripped` find what they should; 1 they do
not; 2 it could not be done; 64 bad usage.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from blocks.errors import FarsideError
from deployments.lab.parts import OPTIONAL
from deployments.lab.places import Network, Places
from tasks.reporting.units import printable

NOT_SO, ERROR, USAGE = 1, 2, 64
_HELP = """Two failure domains, east and west, on this machine.

`up` makes them, `lose east` takes the first one away as a rehearsal does, `up` brings it back,
`down` removes all. Exit codes: 0 done; 1 `status` or `tripped` says no; 2 it could not be done;
64 bad usage."""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Root = Annotated[
    Path | None,
    typer.Option(
        help="The lab's directory. [default: $FARSIDE_LAB, or one in the temporary files]"
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(min=1, help="pgbench's scale, 15 MB each. [default: 10 for a new lab]"),
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help=f"A part that only some plans need: {', '.join(OPTIONAL)}. May be given again.",
    ),
]
Kind = Annotated[
    Network | None,
    typer.Option("--network", help="What hosts are, in a new lab. [default: loopback]"),
]
Events = Annotated[bool, typer.Option("--events", hidden=True)]


@app.callback()
def lab(context: typer.Context, root: Root = None) -> None:
    """Say to every command where the lab is."""
    # Files are for their owner, directories too; what services share is opened by hand.
    os.umask(0o022)
    context.obj = Places.at(root)


@app.command()
def up(
    context: typer.Context,
    scale: Scale = None,
    parts: Parts = None,
    network: Kind = None,
    events: Events = False,
) -> None:
    """Make the lab, or start what is missing in it."""
    from deployments.lab import lifecycle

    def say(step: str) -> None:
        typer.echo(json.dumps({"step": step}) if events else step)
        sys.stdout.flush()

    try:
        if unknown := set(parts or ()) - set(OPTIONAL):
            raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}")
        fresh = lifecycle.up(context.obj, scale, say, frozenset(parts or ()), network)
    except FarsideError as error:
        if not events:
            raise
        typer.echo(json.dumps({"error": {"message": error.message, "hint": error.hint}}))
        raise typer.Exit(ERROR) from None
    if events:
        typer.echo(json.dumps({"fresh": fresh}))
    else:
        typer.echo(f"up: {context.obj.root}")


@app.command()
def status(context: typer.Context) -> None:
    """Say what runs; exit code 1 if anything does not."""
    from deployments.lab import lifecycle

    found = lifecycle.status(context.obj)
    for service in found.services:
        address = "{}:{}".format(*service.endpoint) if service.endpoint else "-"
        state = "ready" if service.ready else "not ready" if service.pid else "not running"
        typer.echo(f"{service.name:<22} {address:<20} {service.pid or '-':>8} {state}")
    if found.lost:
        typer.echo("east is lost: `tripped` shows who calls there, `up` brings it back")
    typer.echo(f"{'up' if found.up else 'not up'}: {context.obj.root}")
    if not found.up:
        raise typer.Exit(NOT_SO)


@app.command()
def down(context: typer.Context) -> None:
    """Kill all of the lab, and remove all its files."""
    from deployments.lab import lifecycle

    for path in lifecycle.down(context.obj):
        typer.echo(f"left, because the lab did not make it: {printable(str(path))}")


@app.command()
def lose(
    context: typer.Context,
    domain: str,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether it could be lost; change nothing.")
    ] = False,
) -> None:
    """Lose east: kill it, close its files, watch its addresses."""
    from deployments.lab import lifecycle

    (lifecycle.check_can_be_lost if check else lifecycle.lose)(context.obj, domain)


@app.command()
def lift(context: typer.Context) -> None:
    """Stop watching the addresses of east; `up` starts it again."""
    from deployments.lab import lifecycle

    lifecycle.lift(context.obj)


@app.command()
def wan(
    context: typer.Context,
    rate: Annotated[str | None, typer.Option(help="Each way, as in 50mbit.")] = None,
    cut: Annotated[bool, typer.Option("--cut", help="Lose every packet between them.")] = False,
) -> None:
    """Limit the link between the domains, cut it, or join it again."""
    from deployments.lab import lifecycle

    lifecycle.wan(context.obj, rate=rate, carries=not cut)


@app.command()
def tripped(context: typer.Context) -> None:
    """Show who called east since it was lost; exit code 1 if not seen.

    Prints a JSON object on each line. Calls are not seen while east is not lost, or once the
    tripwires have died.
    """
    from deployments.lab import fence

    for line in fence.attempts(context.obj):
        typer.echo(line)
    try:
        fence.check_watching(context.obj)
    except FarsideError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise typer.Exit(NOT_SO) from None


def main() -> None:
    """Run the command line; an error says what to do, without a traceback."""
    try:
        code = app(standalone_mode=False)
    except FarsideError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(ERROR)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        typer.echo(f"{error.format_message()}\nTry --help.", err=True)  # click's own: bad usage
        sys.exit(USAGE)
    sys.exit(code)


if __name__ == "__main__":
    main()
