"""A temporary Prefect server for one command, and the search for those that a kill orphaned."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.settings import get_current_settings

from blocks.errors import FarsideError
from tasks.rehearsal import process_start

STARTUP_SECONDS = 180
"""How long a temporary server may take to start: minutes, on a machine that is busy."""
_OWNER = "FARSIDE_SERVER_OF"
"""In the environment of a temporary server: process and start time of the command it serves."""


@contextmanager
def temporary_server(note: Callable[[str], None]) -> Iterator[None]:
    """Start a server, if none is configured, while what is inside runs; ready at the end.

    Prefect ends it when this process ends. Raises FarsideError if it does not start.
    """
    if get_current_settings().api.url:
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    failures: list[BaseException] = []
    os.environ[_OWNER] = f"{os.getpid()}:{process_start(os.getpid())}"

    def start() -> None:
        # Ctrl-C goes to all that run in the terminal; teardown still needs the server.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start(timeout=STARTUP_SECONDS)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=start, name="prefect-server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        note("starting a temporary Prefect server")
        thread.join()
        del os.environ[_OWNER]
    if failures:
        raise FarsideError(
            f"the temporary Prefect server does not start: {failures[0]}",
            hint="start one with `prefect server start` and set PREFECT_API_URL",
        )


def end_orphaned_servers() -> list[str]:
    """End this account's temporary servers whose command was killed; says which."""
    ended = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            variables = dict(
                line.split("=", 1) for line in (folder / "environ").read_text().split("\0") if line
            )
            if "PREFECT__SERVER_EPHEMERAL" not in variables or _OWNER not in variables:
                continue
            owner, _, start = variables[_OWNER].partition(":")
            if str(process_start(int(owner))) != start:
                os.kill(int(folder.name), signal.SIGKILL)
                ended.append(f"temporary Prefect server, process {folder.name}")
    return ended
