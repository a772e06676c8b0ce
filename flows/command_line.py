"""The command line of `python -m flows.rehearse`."""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from blocks.artifact.manifest import ManifestForged
from blocks.errors import FarsideError
from blocks.evidence.record import exit_code
from blocks.plan import PlanError, load_plan, parse_duration, parse_rate, parse_selection
from blocks.sets import retained
from deployments import lab
from flows.rehearse import Watcher, rehearse, watching
from flows.server import temporary_server
from flows.site import check_free, close, is_lab, is_path, opened, saved
from tasks.progress import Progress
from tasks.report import summary

OK, FAILED, UNVERIFIED, USAGE = 0, 1, 2, 64
_GOODBYE_SECONDS = 30.0
"""How long what Prefect has not sent yet may take, once all is done."""
_INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt."""

_HELP = """\
Rehearse a disaster: back up (or choose a backup), lose the source domain, restore into the
recovery domain, prove that the restored service works, and say what it took.

PLAN is the path of a plan file, the name of a saved Prefect block, or a plan of the built-in
lab, which is brought up and taken down for it. Without one: the lab's plan "postgres".

Exit codes: 0 verified within objectives; 1 failed, an objective missed, or a finding of severity
high or worse (risks that the plan accepts do not count); 2 could not verify; 64 bad usage or plan
(nothing was touched).
"""

_Parse = Callable[[object], object]


def _given(parse: _Parse) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            if text:
                parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return text

    return check


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=_HELP)
def command(
    plan: Annotated[
        str, typer.Argument(help="Plan file, saved block, or lab plan", show_default=True)
    ] = "postgres",
    select: Annotated[
        str,
        typer.Option(
            callback=_given(parse_selection),
            help="Which backup: fresh, latest, oldest, random, or the id of a set.",
        ),
    ] = "",
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10000,
            help="Lab only: pgbench scale, 15 MB each. [default: 10 for a new lab]",
        ),
    ] = None,
    wan: Annotated[
        str,
        typer.Option(callback=_given(parse_rate), help="Limit the transfer, e.g. 50Mbit/s."),
    ] = "",
    rto: Annotated[
        str, typer.Option(callback=_given(parse_duration), help="Another RTO, e.g. 15m.")
    ] = "",
    rpo: Annotated[
        str, typer.Option(callback=_given(parse_duration), help="Another RPO, e.g. 60s.")
    ] = "",
    results: Annotated[Path, typer.Option(help="Folder for the records.", file_okay=False)] = Path(
        "rehearsals"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the restored service up and say how to reach it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record on standard output.")
    ] = False,
    list_backups: Annotated[
        bool, typer.Option("--list-backups", help="List the sets that the recovery store retains.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show Prefect's own log, too.")
    ] = False,
) -> None:
    """See _HELP."""
    err = Console(stderr=True)
    _check_plan(plan)
    _check_results(results)
    if list_backups:
        _list(plan, scale)
        return
    if not verbose:
        quiet()
    watcher = Watcher()
    brought_up = False
    keep_lab = False
    ended: BaseException | None = None
    try:
        with Progress(err) as progress:
            watcher.listener = progress
            with temporary_server(progress.note):
                if is_lab(plan):
                    check_free()
                    brought_up = lab.up(scale=scale, on_step=progress.note).fresh
            if not is_lab(plan) and not is_path(plan):
                saved(plan)  # raises PlanError: within the flow it would be a failed run
            with watching(watcher):
                rehearse(
                    plan=plan,
                    select=select,
                    wan=wan,
                    rto=rto,
                    rpo=rpo,
                    results=str(results),
                    keep=keep,
                    scale=scale,
                    return_state=True,
                )
        keep_lab = keep and watcher.service is not None
    except (KeyboardInterrupt, Exception) as error:
        if watcher.record is None:
            raise
        ended = error  # the evidence is there all the same, and is shown first
    finally:
        if brought_up and not keep_lab:
            lab.down()
    if watcher.record is None:
        err.print("The rehearsal ended without a record; run it with --verbose.", style="red")
        raise typer.Exit(UNVERIFIED)
    if watcher.warning:
        err.print(watcher.warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(watcher.record.to_json())
    Console(stderr=as_json).print(
        summary(
            watcher.record,
            watcher.path,
            note=_note(watcher, brought_up),
            lifecycle=watcher.lifecycle,
        )
    )
    if isinstance(ended, KeyboardInterrupt):
        raise ended
    if ended is not None:
        _say(f"Prefect does not know how it ended: {_causes(ended)}")
    raise typer.Exit(exit_code(watcher.record))


def _note(watcher: Watcher, brought_up: bool) -> str:
    if watcher.service is None:
        return ""
    down = "python -m deployments.lab down" if brought_up else "python -m flows.sweep --all"
    return f"kept: {watcher.service.reach}   remove it with: {down}"


def _check_plan(plan: str) -> None:
    """A bad plan file ends here, before anything is started."""
    if is_path(plan):
        load_plan(Path(plan))


def _check_results(folder: Path) -> None:
    """A record that could not be written would be a rehearsal for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"--results {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"--results {folder}: not writable")


def _list(plan: str, scale: int | None) -> None:
    """Sets in the recovery store, oldest first."""
    with opened(plan, scale=scale) as site:
        try:
            sets = retained(site.recovery.store, site.name, site.keys.signer)
        finally:
            close(site)
        for item in sets:
            size = sum(stored.sealed_bytes for stored in item.objects)
            typer.echo(f"{item.set_id}\t{item.taken_at:%Y-%m-%dT%H:%M:%SZ}\t{size}")


def quiet() -> None:
    """The terminal belongs to the progress; Prefect's log still goes to its server."""
    from prefect.logging.handlers import PrefectConsoleHandler

    loggers = (logging.getLogger(name) for name in list(logging.root.manager.loggerDict))
    for logger in loggers:
        logger.handlers = [h for h in logger.handlers if not isinstance(h, PrefectConsoleHandler)]
    logging.getLogger().handlers = []


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (signal's own)
    # Only once: teardown, which follows, must not be ended by an impatient second signal.
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(command: typer.Typer, name: str) -> NoReturn:
    """Be the process of a command: obey signals, and end with the command's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _terminate)
    code = outcome(command, name)
    _end_soon(code)
    sys.exit(code)


def outcome(command: typer.Typer, name: str) -> int:
    """Run a command; every end has a documented exit code, none a traceback."""
    code: int | None
    try:
        code = command(standalone_mode=False, prog_name=name)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        _say("interrupted; what remained after teardown is among the findings, if anything did")
        code = UNVERIFIED
    except (PlanError, ManifestForged) as error:
        _say(str(error))
        code = USAGE if isinstance(error, PlanError) else FAILED
    except FarsideError as error:
        _say(str(error))
        code = UNVERIFIED
    except typer.Exit as done:
        code = done.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own: bad usage
            _say(f"{error.format_message()}\nTry --help.")
            code = USAGE
        else:
            if "--verbose" in sys.argv:
                traceback.print_exc()
            _say(f"could not go on: {_causes(error)} (next: run it with --verbose)")
            code = UNVERIFIED
    return code or OK


def _end_soon(code: int) -> None:
    """Prefect waits without end, on its way out, for a server that is gone."""
    timer = threading.Timer(_GOODBYE_SECONDS, os._exit, (code,))
    timer.daemon = True
    timer.start()


def _causes(error: BaseException | None) -> str:
    """An error and what caused it, in one line: Prefect wraps the reason of a lost server."""
    said = []
    while error is not None:
        said.append(f"{type(error).__name__}: {error}".splitlines()[0])
        error = error.__cause__
    return " <- ".join(said)


def _say(text: str) -> None:
    print(f"{text}", file=sys.stderr)


def main() -> NoReturn:
    """The command line of `python -m flows.rehearse`."""
    run(app, "python -m flows.rehearse")
