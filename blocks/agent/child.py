"""Programs that a job runs: each in a session of its own, none outlives the agent."""

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from blocks.agent import marks
from blocks.agent.failure import JobFailed, no_space, of_os_error, speaks_of_full_disk
from blocks.agent.redaction import redacted, without

_TAIL = 4096
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_running: set["Child"] = set()
_lock = threading.Lock()
_closed = False


_PROMPT = b"Password: "
"""How most programs ask, in the locale that they run in, for what is on their input."""


class Child:
    """A running program. To be started on the main thread only: see `_die_with_parent`."""

    def __init__(  # noqa: PLR0913 (each is an option of a process, by name)
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = subprocess.DEVNULL,
        secret: str | None = None,
        cwd: str | None = None,
        marker: str | None = None,
    ) -> None:
        """`secret` and a line feed go to the program's standard input. Raises JobFailed."""
        self.name = Path(argv[0]).name
        self._secret = secret
        self._tail = bytearray()
        feed = subprocess.PIPE if secret is not None else stdin
        self.process = _start(argv, feed, stdout, cwd, marker)
        if marker is not None and (entry := marks.process(self.process.pid)):
            marks.note(Path(marker), [entry])
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()
        with _lock:
            _running.add(self)
        if _closed:
            self.kill()
        if secret is not None:
            self._tell(secret)

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe to the program's standard input."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe from the program's standard output."""
        assert self.process.stdout is not None
        return self.process.stdout

    def ended(self) -> bool:
        """Whether the program is gone."""
        return self.process.poll() is not None

    def wait(self) -> None:
        """Until it ends. Raises JobFailed if it ends with an error."""
        code = self.process.wait()
        self._forget()
        if code != 0:
            raise self.failure()

    def interrupt(self, patience: float) -> None:
        """SIGINT to the program, and after `patience` seconds SIGKILL to its group."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL to the program and all it started in its session's group; then it is gone."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()
        self._forget()

    def failure(self) -> JobFailed:
        """Why it failed, in its own last words."""
        self._drain.join(2)
        words = self.last_words()
        if speaks_of_full_disk(words):
            return no_space(f"{self.name}: {words[-300:]}")
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
        return JobFailed(
            "child-failed",
            f"{self.name} {how}: {words or 'it said nothing'}",
            hint=f"run {self.name} by hand on this host",
        )

    def last_words(self) -> str:
        """The end of what it wrote to standard error, without secrets."""
        said = without(bytes(self._tail), self._secret or "", _TAIL).removeprefix(_PROMPT)
        return redacted(said.decode("utf-8", "replace").strip())

    def _tell(self, secret: str) -> None:
        try:
            self.stdin.write(secret.encode() + b"\n")
            self.stdin.close()
        except BrokenPipeError:
            return  # it ended without reading: its exit code says more

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as pipe:
            while data := os.read(pipe.fileno(), 65536):
                self._tail += data
                del self._tail[:-_TAIL]

    def _forget(self) -> None:
        with _lock:
            _running.discard(self)


def printed(argv: Sequence[str], secret: str) -> bytes:
    """What a program prints that reads `secret` as the first line of its input. Raises JobFailed.

    On the main thread only, as a Child is started.
    """
    child = Child(argv, stdout=subprocess.PIPE, secret=secret)
    said = child.stdout.read()
    child.wait()
    return said


def kill_all() -> None:
    """Kill every program that runs, and every one that is started from now on."""
    global _closed
    _closed = True
    with _lock:
        running = list(_running)
    for child in running:
        child.kill()


def _start(
    argv: Sequence[str],
    stdin: int | None,
    stdout: int | None,
    cwd: str | None,
    marker: str | None,
) -> "subprocess.Popen[bytes]":
    whose = {marks.VARIABLE: Path(marker).name} if marker is not None else {}
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, **whose, "LC_ALL": "C"},
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except FileNotFoundError as error:
        raise JobFailed(
            "tool-missing",
            f"{error.filename or argv[0]} is not on this host",
            hint="install it, or correct its path in the plan",
            host_errno=error.errno,
        ) from None
    except OSError as error:
        raise of_os_error(error, f"start {argv[0]}") from None


def _die_with_parent() -> None:
    """Has the kernel kill the child when the thread that started it ends, however it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
