"""A temporary Prefect server for one command, and the search for those that a kill orphaned."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from prefect.settings import get_current_settings

from blocks.errors import FarsideError
from blocks.limits import within
from tasks.lease import has_ended, this_process

STARTUP_SECONDS = 180
"""How long a temporary server may take to start: minutes, on a machine that is busy."""
ANSWER_SECONDS = 10.0
"""How long a server may take for an answer."""
STAMP = "FARSIDE_SERVER_OF"
"""In the environment of a temporary server: the process that it serves, and the server's port.

Programs that the process starts inherit it; of these, only the server has that port.
"""


def check_server() -> None:
    """Raise FarsideError if a server is configured and does not answer, within half a minute."""
    url = get_current_settings().api.url
    if not url:
        return
    from prefect.client.orchestration import get_client

    def ask() -> Exception | None:
        with get_client(sync_client=True, httpx_settings={"timeout": ANSWER_SECONDS}) as client:
            return client.api_healthcheck()

    try:
        problem = within(2 * ANSWER_SECONDS, ask, late=TimeoutError)
    except Exception as error:  # noqa: BLE001 (whatever its client raises, the server does not answer)
        problem = error
    if problem is not None:
        why = f"{type(problem).__name__} {problem}".strip()
        raise FarsideError(
            f"Prefect's server at {url} does not answer: {why}",
            hint="correct PREFECT_API_URL (`prefect config view`), start that server, or unset it: "
            "farside then starts a temporary one",
        )


@contextmanager
def bounded_waits() -> Iterator[None]:
    """Have Prefect's client give a server up soon that is lost on the way, and say so once.

    A site's own settings, in the environment or in a profile, are left alone.
    """
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, temporary_settings

    with temporary_settings(set_defaults={PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        yield


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
    server = SubprocessASGIServer()
    server.port = server.find_available_port()
    for name in ("NO_PROXY", "no_proxy"):  # it is this machine's own: no proxy leads there
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))
    os.environ[STAMP] = f"{this_process()} {server.port}"

    def start() -> None:
        # Ctrl-C, and a closed terminal, tell all that run there; teardown still needs the server.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            server.start(timeout=STARTUP_SECONDS)
        except BaseException as error:  # noqa: BLE001 (told by the caller, as a FarsideError)
            failures.append(error)

    thread = threading.Thread(target=start, name="prefect-server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        note("starting a temporary Prefect server")
        thread.join()
        del os.environ[STAMP]
    if failures:
        raise FarsideError(
            f"the temporary Prefect server does not start: {failures[0]}",
            hint="start one with `prefect server start` and set PREFECT_API_URL",
        )


def end_orphaned_servers() -> list[str]:
    """End the temporary servers that farside started and whose command was killed; says which.

    A server is ended only if its stamp names its own port and a process of this machine that is
    known to have ended; it must belong to this account.
    """
    ended = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            process = os.pidfd_open(int(folder.name))
            try:
                if _is_orphan(folder):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    ended.append(f"temporary Prefect server, process {folder.name}")
            finally:
                os.close(process)
    return ended


def _is_orphan(folder: Path) -> bool:
    """Whether a process, by its folder in /proc, is a temporary server whose command has ended."""
    if folder.stat().st_uid != os.geteuid():
        return False
    prefix = f"{STAMP}=".encode()
    stamps = [
        line.removeprefix(prefix).decode(errors="replace")
        for line in (folder / "environ").read_bytes().split(b"\0")
        if line.startswith(prefix)
    ]
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if len(stamps) != 1 or "prefect.server.api.server:create_app" not in words:
        return False
    owner, _, port = stamps[0].rpartition(" ")
    return ("--port", port) in pairwise(words) and has_ended(owner)
