"""What every host can do, and how it fails.

All kinds behave alike, and `tests/conformance/test_host.py` holds them to it. Bulk data never
passes here: a host streams straight to and from its domain's store.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from blocks.agent.redaction import redacted, without
from blocks.block import Address, DomainPart, absolute_path
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.process import (
    OUTPUT_BYTES,
    STDERR_BYTES,
    Collector,
    CommandFailed,
    CommandNotStarted,
    Completed,
    ConnectionLost,
    Process,
)
from blocks.limits import within
from blocks.settings import connect_seconds

CONNECT_STEPS = 4
"""A connection is made in so many steps, each with its own time limit."""
WHOLE_FILE_SECONDS = 300.0
"""Time limit for a whole file, however often something is heard of it."""

FILE_BYTES = 64 << 20
"""The largest file that is got, where its caller sets no other limit."""
PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}
"""Environment of every command: what a tool says is in English, whatever the account's language."""


class HostUnreachable(TransientError):
    """No connection could be made, or no answer comes over the one that there is."""

    finding = FindingId.HOST_UNREACHABLE


class FileMissing(PermanentError):
    """A file to get is not there."""


class FileRefused(PermanentError):
    """A file could not be read or written: permissions, space, a directory in the way."""


class Host(DomainPart, ABC):
    """A machine on which commands run."""

    name: str = Field(description="What plan, records and messages call this host.", min_length=1)
    address: Address = Field(
        description="IP address or DNS name by which farside reaches it.", min_length=1
    )
    work_dir: str = Field(
        default="~/.farside",
        description="Directory on the host for what a rehearsal needs there, which no other "
        "account can write to; created if missing. ~ is the account's home. Default: ~/.farside.",
        pattern=r"^(~?/)[^\x00-\x1f\x7f]+$",
    )
    python: str = Field(
        default="python3",
        description="Python 3.11 or newer on the host, with cryptography and zstandard: a program "
        "name or a path. Default: python3.",
        min_length=1,
    )

    @field_validator("work_dir")
    @classmethod
    def _goes_down_only(cls, value: str) -> str:
        absolute_path(value.removeprefix("~"))
        return value

    _work_root: str = PrivateAttr(default="")

    @property
    def work_root(self) -> str:
        """`work_dir` as an absolute path. Raises as `run`, where the home is asked for."""
        if not self._work_root:
            root = self.work_dir
            if root.startswith("~/"):
                home = self.run(["sh", "-c", "cd && pwd -P"]).text.splitlines()[-1]
                root = f"{home.rstrip('/')}/{root[2:]}"
            self._work_root = root.rstrip("/")
        return self._work_root

    @abstractmethod
    def _start(self, argv: Sequence[str]) -> Process:
        """Start `argv`; raises CommandNotStarted, HostUnreachable and what connecting raises."""

    @abstractmethod
    def _put(self, data: bytes, path: str, mode: int) -> None:
        """See `put`; without a time limit for the whole."""

    @abstractmethod
    def _get(self, path: str, most: int) -> bytes:
        """See `get`; without a time limit for the whole, and at most one byte more than `most`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, if there is one; the next use makes another."""

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        """Write a small file at once (temporary name, then rename); its directory must exist.

        Raises FileRefused, ConnectionLost, and what connecting raises.
        """
        self.note("host", self.name)
        late = partial(self._file_late, path, "put")
        within(WHOLE_FILE_SECONDS, lambda: self._put(data, path, mode), late=late)

    def get(self, path: str, most: int = FILE_BYTES) -> bytes:
        """Read a small file, of at most `most` bytes.

        Raises FileMissing, FileRefused (also where it is larger), ConnectionLost, and what
        connecting raises.
        """
        self.note("host", self.name)
        late = partial(self._file_late, path, "get")
        data = within(WHOLE_FILE_SECONDS, lambda: self._get(path, most), late=late)
        if len(data) > most:
            raise FileRefused(
                f"{path} is larger than {most:,} bytes",
                operation="get",
                domain=self.domain,
                host=self.name,
                hint="see what it holds: it is none of what farside expects there",
            )
        return data

    def _file_late(self, path: str, operation: str) -> ConnectionLost:
        return ConnectionLost(
            f"{path} took longer than {WHOLE_FILE_SECONDS:g} s",
            operation=operation,
            domain=self.domain,
            host=self.name,
            hint="is the host up, or does it hang?",
        )

    def start(self, argv: Sequence[str], timeout: float | None = None) -> Process:
        """Start a command and talk to it; no shell interprets the arguments.

        Its locale is C (`PLAIN`). It must have started after `timeout` seconds, and after those
        that connecting may take. Raises CommandNotStarted, HostUnreachable, HostKeyMismatch,
        AuthenticationRefused, ShellNotQuiet.
        """
        if not argv or any("\0" in word for word in argv):
            raise CommandNotStarted(
                "a command needs a program, and its arguments no NUL characters",
                operation="run",
                domain=self.domain,
                host=self.name,
            )
        self.note("host", self.name)
        self.note("tool", f"{self.name}:{_program(argv)}")
        limit = (CONNECT_STEPS + 2) * connect_seconds()
        limit = limit if timeout is None else min(limit, timeout)

        def late() -> HostUnreachable:
            return HostUnreachable(
                f"{argv[0]} was not started within {limit:g} s",
                operation="run",
                domain=self.domain,
                host=self.name,
                hint="is the host up, or does it hang?",
            )

        return within(limit, lambda: self._start(argv), late=late, discard=Process.kill)

    def run(  # noqa: PLR0913 (each is an option of a command, by name)
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002 (as in subprocess.run)
        password: SecretStr | None = None,
        timeout: float = 60.0,
        check: bool = True,
        most: int = OUTPUT_BYTES,
        secret: bool = False,
    ) -> Completed:
        """Run a command to its end, with `input` on its standard input, behind a `password`'s line.

        Standard error is kept up to its last 8 KiB, without the password. `secret` says that the
        command prints one: none of its output is then in an error. Raises CommandFailed for a
        non-zero exit code if `check`, CommandTimeout after `timeout` seconds (its start included),
        OutputTooLarge above `most` bytes of output, ConnectionLost, and what `start` raises.
        """
        began, given, sent = time.monotonic(), "", input
        if password is not None:
            given = password.get_secret_value()
            sent = f"{given}\n".encode() + (input or b"")
        with self.start(argv, timeout) as process:
            code, output = Collector(process, timeout, most, began).run(sent)
            stderr = without(process.stderr, given, STDERR_BYTES)
        if check and code != 0:
            raise self._failed(argv[0], code, b"" if secret else stderr, secret=secret)
        return Completed(tuple(argv), code, output, stderr)

    def _failed(
        self, program: str, code: int, stderr: bytes, *, secret: bool = False
    ) -> CommandFailed:
        tail = redacted(stderr.decode(errors="replace").strip())
        how = f"ended with exit code {code}" if code >= 0 else "was ended by a signal"
        said = ": " + tail[-1000:] if tail else ", and said nothing"
        if secret:
            said = "; what it said is not shown, because it may hold the secret"
        return CommandFailed(
            f"{program} {how}{said}",
            exit_code=code,
            stderr=tail,
            operation="run",
            domain=self.domain,
            host=self.name,
        )

    def _file_error(self, error: OSError, path: str, operation: str) -> PermanentError:
        where = {"operation": operation, "domain": self.domain, "host": self.name}
        if isinstance(error, FileNotFoundError):
            return FileMissing(f"{path} is not there", **where)
        return FileRefused(
            f"{path}: {error.strerror or error}",
            hint="look at the permissions and the free space there",
            **where,
        )


def _program(argv: Sequence[str]) -> str:
    """What runs in the end: `env` only changes variables for the words behind it."""
    if argv[0] != "env":
        return argv[0]
    behind = (word for word in argv if "=" not in word and not word.startswith("-"))
    return next((word for word in behind if word != "env"), argv[0])


def draft_name(name: str) -> str:
    """A hidden name for a file while it is written, another one at each call."""
    return f".{name}.{secrets.token_hex(4)}.part"
