"""The console command `farside`: a subcommand for each flow, the lab, and keys.

Unlike `python -m flows.NAME` it does not look for modules in the directory that it is called in.
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from flows import keys
from flows.command import USAGE, run, say
from flows.rehearse import __main__ as rehearse
from flows.sweep import __main__ as sweep

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command("rehearse", help=rehearse.HELP)(rehearse.command)
try:
    from deployments.lab import __main__ as lab
    from flows.drill import __main__ as drill
except ModuleNotFoundError as missing:  # a site needs no lab
    lacking = missing.name
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    def no_lab() -> None:
        """Needs what `pip install 'farside[lab]'` brings."""
        say(f"{lacking} is not installed (next: pip install 'farside[lab]')")
        raise typer.Exit(USAGE)

    for name in ("drill", "lab"):
        app.command(name, context_settings=anything)(no_lab)
else:
    app.command("drill")(drill.command)
    app.add_typer(lab.app, name="lab")
app.command("sweep")(sweep.command)
app.command("keys")(keys.command)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.")
    ] = False,
) -> None:
    """Rehearse disaster recovery: restore into another failure domain, with the first one lost."""
    if show_version:
        typer.echo(f"farside {version('farside')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


def main() -> None:
    """Be the process of the console command."""
    sys.argv = rehearse.with_duration(sys.argv)
    run(app, "farside")


if __name__ == "__main__":
    main()
