"""The command line of `python -m flows.rehearse`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from prefect.exceptions import TerminationSignal
from rich.console import Console

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Record
from blocks.evidence.stages import StageName
from blocks.evidence.verdict import exit_code
from blocks.plan.loading import load_plan
from blocks.plan.values import parse_duration, parse_rate, parse_selection
from blocks.repositories.farside.listing import headers
from deployments import lab
from flows.command import UNVERIFIED, causes, quiet, run, say
from flows.rehearse import Watcher, rehearse, watching
from flows.server import bounded_waits, check_server, temporary_server
from flows.signals import deferred
from flows.site import check_free, close, is_lab, is_path, opened, saved
from tasks.reporting.progress import Progress
from tasks.reporting.terminal import summary
from tasks.reporting.units import printable

HELP = """\
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


@app.command(help=HELP)
def command(  # noqa: PLR0913 (each is an option of the command)
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
        str,
        typer.Option(
            metavar="[DURATION]",
            callback=_given(parse_duration),
            help="Leave the restored service up, behind its fence, for 24h or as long as given.",
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record on standard output.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the plan file and end; keys and CA files that it names may be absent.",
        ),
    ] = False,
    list_backups: Annotated[
        bool, typer.Option("--list-backups", help="List the sets that the recovery store retains.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show Prefect's own log, too.")
    ] = False,
) -> None:
    """See HELP."""
    err = Console(stderr=True)
    _check_plan(plan, local_files=not check)
    if check:
        err.print(f"{plan}: valid; files that it names here were not looked at", highlight=False)
        return
    _check_results(results)
    if list_backups:
        _list(plan, scale)
        return
    check_server()
    if not verbose:
        quiet()
    with _rehearsing(err, plan, scale, keep=bool(keep)) as run:
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
    raise typer.Exit(_tell(err, run, as_json=as_json))


@dataclass(slots=True)
class _Run:
    """What came of a rehearsal: what its watcher was given, and what ended it, if not its end."""

    watcher: Watcher
    brought_up: bool = False
    ended: BaseException | None = None


@contextmanager
def _rehearsing(err: Console, plan: str, scale: int | None, *, keep: bool) -> Iterator[_Run]:
    """Progress, a Prefect server and, for a plan of the lab, the lab, for what runs inside.

    What is raised inside is kept in what is yielded, if there is a record nevertheless.
    """
    run = _Run(Watcher())
    keep_lab = False
    try:
        with Progress(err) as progress:
            run.watcher.listener = progress
            with temporary_server(progress.note):
                if is_lab(plan):
                    check_free()
                    run.brought_up = lab.up(scale=scale, on_step=progress.note).fresh
            if not is_lab(plan) and not is_path(plan):
                saved(plan)  # raises PlanError: within the flow it would be a failed run
            with watching(run.watcher), bounded_waits():
                yield run
        keep_lab = keep and run.watcher.service is not None
    except (KeyboardInterrupt, TerminationSignal, Exception) as error:
        if run.watcher.record is None:
            raise
        run.ended = error  # the evidence is there all the same, and is shown first
    finally:
        if run.brought_up and not keep_lab:
            with deferred():
                lab.down()


def _tell(err: Console, run: _Run, *, as_json: bool) -> int:
    """Show the outcome, whatever ended it; the exit code."""
    watcher, record = run.watcher, run.watcher.record
    if record is None:
        err.print("The rehearsal ended without a record; run it with --verbose.", style="red")
        return UNVERIFIED
    if watcher.warning:
        err.print(watcher.warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(record.to_json())
    note = printable(_note(watcher, run.brought_up))
    told = summary(record, watcher.path, note=note, lifecycle=watcher.lifecycle)
    Console(stderr=as_json).print(told)
    if isinstance(run.ended, KeyboardInterrupt | TerminationSignal):
        say(_interrupted(record))
        return UNVERIFIED
    if run.ended is not None:
        say(f"Prefect does not know how it ended: {causes(run.ended)}")
    return _code(watcher, record)


def _code(watcher: Watcher, record: Record) -> int:
    """The exit code of a rehearsal: one whose record was not written has proven nothing."""
    code = exit_code(record)
    return UNVERIFIED if code == 0 and watcher.path is None else code


def _interrupted(record: Record) -> str:
    """What an interruption left behind, in truth."""
    left = [
        f"{item.subject}: {item.evidence}"
        for item in record.findings
        if item.stage == StageName.TEARDOWN
        and item.id in (FindingId.LEFTOVERS, FindingId.FENCE_STAYS)
    ]
    if not left:
        return "interrupted; teardown has removed all that the rehearsal made"
    return f"interrupted; remaining: {'; '.join(left)} (next: python -m flows.sweep)"


def _note(watcher: Watcher, brought_up: bool) -> str:
    if watcher.service is None:
        return ""
    down = "python -m deployments.lab down" if brought_up else "python -m flows.sweep --all"
    until = f"{watcher.kept_until:%Y-%m-%d %H:%M} UTC" if watcher.kept_until else ""
    reach = watcher.service.reach
    return f"kept until {until}, behind its fence: {reach}   remove it with: {down}"


def _check_plan(plan: str, *, local_files: bool = True) -> None:
    """A bad plan file ends here, before anything is started."""
    if is_path(plan):
        load_plan(Path(plan), local_files=local_files)


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
            sets = list(headers(site.recovery.store, site.binding))
        finally:
            close(site)
        for set_id, item in sets:
            if isinstance(item, FarsideError):
                text = f"{printable(set_id)}\tnot this plan's: {printable(item.message)}"
                typer.echo(text, err=True)
            else:
                typer.echo(
                    f"{printable(set_id)}\t{item.taken_at:%Y-%m-%dT%H:%M:%SZ}\t{item.sealed_bytes}"
                )


def with_duration(words: list[str]) -> list[str]:
    """`--keep` may stand alone: then it is for a day."""
    given: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        given.append(word)
        if word == "--keep" and not following[:1].isdecimal():
            given.append("24h")
    return given


if __name__ == "__main__":
    sys.argv = with_duration(sys.argv)
    run(app, "python -m flows.rehearse")
