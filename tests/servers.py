"""Servers that all tests share, on whichever worker they run; they end with the last of them."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SHARED = "FARSIDE_TESTS_SHARED"
"""The variable that tells every worker the folder of what is shared."""
PATIENCE = 180.0
"""Seconds for a server to start, on a busy machine."""


def begin() -> None:
    """Make the folder; called once, before any worker starts."""
    os.environ.setdefault("FARSIDE_LAB_LOAD", "10")  # most time would go to labs that wait
    os.environ[SHARED] = tempfile.mkdtemp(prefix="farside-tests-shared-")
    Path(os.environ[SHARED]).chmod(0o711)  # servers of other accounts run programs that are there


def end() -> None:
    """End what was started, and remove the folder; called once, after the last worker."""
    folder = Path(os.environ.pop(SHARED))
    with suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(json.loads((folder / "prefect.json").read_text())["pid"], signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive() -> Iterator[Path]:
    """The folder of what is shared, with no other worker at it."""
    folder = Path(os.environ[SHARED])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """One Prefect server, with `home` as its directory."""

    home: Path
    port: int

    @classmethod
    def shared(cls) -> "PrefectServer":
        """The server of this run of the tests, started by the first that asks; it may not be ready.

        Starting one costs 10 s or more, most of it its own migrations.
        """
        with exclusive() as folder:
            server = cls(folder / "prefect", _port_of(folder))
            note = folder / "prefect.json"
            if not note.exists():
                note.write_text(json.dumps({"pid": server._start()}))
        return server

    @property
    def api(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    def ready(self) -> str:
        """Wait until it answers; its address."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                urllib.request.urlopen(f"{self.api}/health", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return self.api
        raise AssertionError((self.home / "log").read_text()[-2000:])

    def _start(self) -> int:
        self.home.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).pid


def _port_of(folder: Path) -> int:
    """A port that was free when it was first asked for, the same for every worker."""
    note = folder / "port"
    if not note.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            note.write_text(str(probe.getsockname()[1]))
    return int(note.read_text())
