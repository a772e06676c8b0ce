"""A command on the machine that farside runs on."""

import contextlib
import os
import signal
import subprocess
from typing import IO

from blocks.hosts.process import CHUNK, Process


class LocalProcess(Process):
    """A process of this machine, which leads a process group."""

    def __init__(self, host: str, domain: str, program: str, popen: subprocess.Popen[bytes]):
        super().__init__(host, domain, program)
        self._popen = popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._stdin, self._out, self._err = popen.stdin, popen.stdout, popen.stderr

    def write(self, data: bytes) -> None:
        """See Process."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._stdin.write(rest) :]
        except (OSError, ValueError) as error:
            raise self._input_refused() from error

    def close_input(self) -> None:
        """See Process."""
        with contextlib.suppress(OSError, ValueError):
            self._stdin.close()

    def kill(self) -> None:
        """See Process."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _read(self) -> bytes:
        return _read_or_close(self._out)

    def _read_stderr(self) -> bytes:
        return _read_or_close(self._err)

    def _exit_code(self, timeout: float) -> int | None:
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def _release(self) -> None:
        """The pumps close what they read from; closing it under them is no good."""


def _read_or_close(pipe: IO[bytes]) -> bytes:
    data = os.read(pipe.fileno(), CHUNK)
    if not data:
        pipe.close()
    return data
