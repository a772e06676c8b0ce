"""What every command shares: its exit codes, signals, and how it says what went wrong."""

import logging
import os
import sys
import threading
import traceback
from typing import Any, NoReturn

import typer

from blocks import settings
from blocks.artifact.manifest import ManifestForged
from blocks.errors import FarsideError
from blocks.evidence.verdict import ExitCode
from blocks.plan.loading import PlanError
from flows.output import tolerate_closed
from flows.signals import obey
from tasks.reporting.units import printable

OK, FAILED, UNVERIFIED, USAGE = ExitCode
_GOODBYE_SECONDS = 30.0
"""How long what Prefect has not sent yet may take, once all is done."""
_INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt."""


def quiet() -> None:
    """The terminal belongs to the progress; Prefect's log still goes to its server."""
    from prefect.logging.handlers import PrefectConsoleHandler

    loggers = (logging.getLogger(name) for name in list(logging.root.manager.loggerDict))
    for logger in loggers:
        logger.handlers = [h for h in logger.handlers if not isinstance(h, PrefectConsoleHandler)]
    logging.getLogger().handlers = []
    logging.lastResort = logging.NullHandler()  # else what Prefect could not send is printed


def run(command: typer.Typer, name: str) -> NoReturn:
    """Be the process of a command: obey signals, and end with the command's exit code."""
    tolerate_closed()
    obey()
    code = outcome(command, name)
    _end_soon(code)
    sys.exit(code)


def outcome(command: typer.Typer, name: str) -> int:
    """Run a command; every end has a documented exit code, none a traceback."""
    code: int | None
    try:
        settings.check()
        code = command(standalone_mode=False, prog_name=name)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        say("interrupted")
        code = UNVERIFIED
    except (PlanError, settings.BadSetting) as error:
        say(str(error))
        code = USAGE
    except ManifestForged as error:
        say(str(error))
        code = FAILED
    except FarsideError as error:
        say(str(error))
        code = UNVERIFIED
    except typer.Exit as done:
        code = done.exit_code
    except Exception as error:  # noqa: BLE001 (an operator gets a message and an exit code, whatever broke)
        if hasattr(error, "format_message"):  # click's own: bad usage
            say(f"{error.format_message()}\nTry --help.")
            code = USAGE
        else:
            if "--verbose" in sys.argv:
                traceback.print_exc()
            hint = " (next: run it with --verbose)" if _has_verbose(command) else ""
            say(f"could not go on: {causes(error)}{hint}")
            code = UNVERIFIED
    return code or OK


def _has_verbose(app: typer.Typer) -> bool:
    """Whether the command that was called has that option."""
    command: Any = typer.main.get_command(app)
    word = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    called = getattr(command, "commands", {}).get(word, command)
    return any(item.name == "verbose" for item in called.params)


def _end_soon(code: int) -> None:
    """Prefect waits without end, on its way out, for a server that is gone."""
    timer = threading.Timer(_GOODBYE_SECONDS, os._exit, (code,))
    timer.daemon = True
    timer.start()


def causes(error: BaseException | None) -> str:
    """An error and what caused it, in one line: Prefect wraps the reason of a lost server."""
    said = []
    while error is not None:
        said.append(f"{type(error).__name__}: {error}".splitlines()[0])
        error = error.__cause__
    return " <- ".join(said)


def say(text: str) -> None:
    """Tell the operator on standard error, whatever an error's text holds."""
    print("\n".join(printable(line) for line in text.splitlines()), file=sys.stderr)  # noqa: T201 (the one place where commands print)
