"""A command that runs on a host: its three streams, its time limit, its end."""

import contextlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId

EXIT_GRACE_SECONDS = 5.0
"""How long a process may go on after its input was closed, before it is killed."""
OUTPUT_BYTES = 256 << 20
"""What a command may write in all, where its caller sets no other limit."""
LINE_BYTES = 64 << 20
"""How long a line may be that is read as it comes."""
CHUNK = 1 << 16
STDERR_BYTES = 8192
"""How much of the end of standard error is kept."""
_QUEUED_CHUNKS = 64


class ConnectionLost(TransientError):
    """The connection broke while something was under way on the host."""


class CommandTimeout(TransientError):
    """A command took longer than its time limit; it was killed."""


NOT_RUN = (126, 127)
"""Exit codes of a shell that could not run the command, or did not find it."""


class CommandFailed(PermanentError):
    """A command ended with a non-zero exit code.

    `exit_code` is negative when a signal ended it; `stderr` is the end of what it wrote there.
    """

    def __init__(self, message: str, *, exit_code: int, stderr: str, **where: str) -> None:
        super().__init__(message, **where)
        self.exit_code = exit_code
        self.stderr = stderr
        if exit_code in NOT_RUN:
            self.finding = FindingId.TOOL_MISSING


class OutputTooLarge(PermanentError):
    """A command wrote, or a file holds, more than can be meant; the command was killed."""


class CommandNotStarted(PermanentError):
    """The host refused to start a command, or the arguments cannot be passed to any."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. `exit_code` is negative when a signal ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the white space around it."""
        return self.stdout.decode(errors="replace").strip()


class Process(ABC):
    """A command that runs on a host, with its three streams.

    Standard output and error are drained by threads from the start, so neither side can block the
    other. As a context manager: at the end the input is closed, and what then goes on for
    longer than `EXIT_GRACE_SECONDS` is killed.
    """

    def __init__(self, host: str, domain: str, program: str) -> None:
        self.host = host
        self.domain = domain
        self.program = program
        self._output: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._stderr = bytearray()
        self._stderr_done = threading.Event()
        self._abandoned = threading.Event()
        self._stdout_ended = False

    # What a kind of host has to say

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write to standard input; blocks while the process does not read.

        Raises ConnectionLost when the process no longer reads.
        """

    @abstractmethod
    def close_input(self) -> None:
        """End standard input; idempotent."""

    @abstractmethod
    def kill(self) -> None:
        """End the process and its process group, as far as the host can be told to."""

    @abstractmethod
    def _read(self) -> bytes:
        """Some bytes of standard output; empty at its end."""

    @abstractmethod
    def _read_stderr(self) -> bytes:
        """Some bytes of standard error; empty at its end."""

    @abstractmethod
    def _exit_code(self, timeout: float) -> int | None:
        """The exit code once there is one, None after `timeout` seconds; raises ConnectionLost."""

    @abstractmethod
    def _release(self) -> None:
        """Close what is open on this side."""

    # What is the same everywhere

    def _input_refused(self) -> ConnectionLost:
        return ConnectionLost(
            f"{self.program} no longer reads its input",
            operation="run",
            domain=self.domain,
            host=self.host,
        )

    def begin(self) -> Self:
        """Start to drain what it writes; to be called once, where a process is made."""
        for pump in (self._pump_stdout, self._pump_stderr):
            threading.Thread(target=pump, name=f"{self.host}-{pump.__name__}", daemon=True).start()
        return self

    def _pump_stdout(self) -> None:
        while data := self._read():
            self._offer(data)
        self._offer(None)

    def _offer(self, data: bytes | None) -> None:
        while not self._abandoned.is_set():
            with contextlib.suppress(queue.Full):
                self._output.put(data, timeout=0.2)
                return

    def _pump_stderr(self) -> None:
        while data := self._read_stderr():
            self._keep_stderr(data)
        self._stderr_done.set()

    def _keep_stderr(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-STDERR_BYTES]

    def _chunk(self, timeout: float | None) -> bytes | None:
        """The next bytes of standard output, None at its end; raises queue.Empty."""
        if self._stdout_ended:
            return None
        data = self._output.get(timeout=timeout)
        self._stdout_ended = data is None
        return data

    def write_line(self, line: str) -> None:
        """Write one line to standard input."""
        self.write(line.encode() + b"\n")

    def lines(self, idle: float | None = None) -> Iterator[str]:
        """Lines of standard output as they come, without their ends.

        Raises CommandTimeout when `idle` seconds pass without output, and OutputTooLarge for a
        line longer than `LINE_BYTES`.
        """
        rest = bytearray()
        while (data := self._chunk_or_timeout(idle)) is not None:
            start = len(rest)
            rest += data
            if len(rest) > LINE_BYTES and b"\n" not in data:
                raise self.too_large(f"a line of more than {LINE_BYTES:,} bytes")
            if (end := rest.rfind(b"\n", start)) >= 0:
                whole = bytes(rest[:end])
                del rest[: end + 1]
                for line in whole.split(b"\n"):
                    yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    def too_large(self, what: str) -> OutputTooLarge:
        """The process is killed; the error to raise."""
        self.kill()
        return OutputTooLarge(
            f"{self.program} wrote {what}",
            operation="run",
            domain=self.domain,
            host=self.host,
            hint="run the command there by hand, and see what it writes",
        )

    def _chunk_or_timeout(self, timeout: float | None) -> bytes | None:
        try:
            return self._chunk(timeout)
        except queue.Empty:
            raise CommandTimeout(
                f"{self.program} was silent for {timeout:g} s",
                operation="run",
                domain=self.domain,
                host=self.host,
            ) from None

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code; output that was not read is thrown away meanwhile.

        Raises CommandTimeout after `timeout` seconds (the process goes on), and ConnectionLost.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if self._chunk(min(0.02, left)) is not None:
                    continue
            pause = left if self._stdout_ended else min(0.02, left)
            if (code := self._exit_code(pause)) is not None:
                self._stderr_done.wait(1.0)
                return code
        raise CommandTimeout(
            f"{self.program} did not end within {timeout:g} s",
            operation="run",
            domain=self.domain,
            host=self.host,
        )

    @property
    def stderr(self) -> bytes:
        """The end of standard error so far, at most 8 KiB."""
        return bytes(self._stderr)

    def stderr_tail(self) -> str:
        """The same as text."""
        return self.stderr.decode(errors="replace").strip()

    def close(self) -> None:
        """Close the input, let the process end, kill it if it does not."""
        with contextlib.suppress(TransientError):
            self.close_input()
        try:
            self.wait(EXIT_GRACE_SECONDS)
        except TransientError:
            self.kill()
        finally:
            self._abandoned.set()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Collector:
    """Brings a started process to its end with everything it writes kept, within limits.

    `timeout` seconds count from `began` (monotonic), or from now; `most` is in bytes.
    """

    def __init__(
        self,
        process: Process,
        timeout: float,
        most: int = OUTPUT_BYTES,
        began: float | None = None,
    ) -> None:
        self._process = process
        self._timeout = timeout
        self._most = most
        self._deadline = (time.monotonic() if began is None else began) + timeout

    def run(self, data: bytes | None) -> tuple[int, bytes]:
        """Exit code and output, with `data` on standard input.

        Raises CommandTimeout, OutputTooLarge.
        """
        feeder = threading.Thread(target=self._feed, args=(data,), daemon=True)
        feeder.start()
        output = bytearray()
        while (chunk := self._chunk()) is not None:
            output += chunk
            if len(output) > self._most:
                raise self._process.too_large(f"more than {self._most:,} bytes")
        return self._code(), bytes(output)

    def _feed(self, data: bytes | None) -> None:
        # A process that stops reading is no failure by itself: its exit code says what happened.
        with contextlib.suppress(TransientError):
            if data:
                self._process.write(data)
            self._process.close_input()

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _chunk(self) -> bytes | None:
        try:
            return self._process._chunk(self._left())
        except queue.Empty:
            raise self._too_long() from None

    def _code(self) -> int:
        code = self._process._exit_code(self._left())
        if code is None:
            raise self._too_long()
        self._process._stderr_done.wait(min(5.0, self._left()))
        return code

    def _too_long(self) -> CommandTimeout:
        process = self._process
        try:
            ended = process._exit_code(0) is not None
        except ConnectionLost:
            ended = False
        process.kill()
        if ended:
            text = f"{process.program} ended, but something that it started keeps its output open"
            hint = "start background programs with their output redirected"
        else:
            text = f"{process.program} did not end within {self._timeout:g} s"
            hint = "see what the host is busy with"
        return CommandTimeout(
            text, operation="run", domain=process.domain, host=process.host, hint=hint
        )
