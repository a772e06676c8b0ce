"""Hosts: run a command, start one and talk to it, put a small file, get one.

Both kinds behave alike, and `tests/blocks/hosts/test_hosts.py` holds both to it. Bulk data never
passes here: a host streams straight to and from its domain's store.
"""

import base64
import binascii
import contextlib
import hashlib
import logging
import os
import secrets
import shlex
import socket
import stat
import struct
import subprocess
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from blocks.agent.redaction import redacted, without
from blocks.block import Address, DomainPart, absolute_path
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.hosts.process import (
    OUTPUT_BYTES,
    STDERR_BYTES,
    Collector,
    CommandFailed,
    CommandNotStarted,
    Completed,
    ConnectionLost,
    LocalProcess,
    Process,
    SSHProcess,
)
from blocks.limits import briefly, within
from blocks.settings import connect_seconds

if TYPE_CHECKING:  # paramiko is imported at the first connection: this module loads with Prefect
    from paramiko import Channel, PKey, SFTPClient, Transport

CONNECT_STEPS = 4
"""A connection is made in so many steps, each with a time limit of its own."""
KEEPALIVE_SECONDS = 10
"""A message at least this often, so that a dead peer is noticed."""
DEAD_PEER_SECONDS = 30
"""Unacknowledged data this old breaks the connection."""
FILE_SECONDS = 60.0
"""Time limit for one answer while a file is put or got."""
WHOLE_FILE_SECONDS = 300.0
"""Time limit for a whole file, however often something is heard of it."""
FILE_BYTES = 64 << 20
"""The largest file that is got, where its caller sets no other limit."""
PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}
"""Environment of every command: what a tool says is in English, whatever the account's language."""

_NOISE = 4096


class HostUnreachable(TransientError):
    """No connection could be made, or nothing is heard over the one that there is."""

    finding = "host-unreachable"


class HostKeyMismatch(PermanentError):
    """The host showed another key than the pinned one, or none is pinned."""

    finding = "ssh-trust-missing"


class AuthenticationRefused(PermanentError):
    """The host refused the user's key, or the key file cannot be used."""

    finding = "ssh-trust-missing"


class ShellNotQuiet(PermanentError):
    """The account's shell prints something by itself: it would be taken for what tools say."""

    finding = "host-unreachable"


class FileMissing(PermanentError):
    """A file to get is not there."""


class FileRefused(PermanentError):
    """A file could not be read or written: permissions, space, a directory in the way."""


class Host(DomainPart):
    """A machine on which commands run."""

    name: str = Field(description="What the plan calls this host", min_length=1)
    address: Address = Field(description="IP address or DNS name", min_length=1)
    work_dir: str = Field(
        default="~/.farside",
        description="Directory on the host for what a rehearsal needs there, which no other "
        "account can write to; created if missing. ~ is the account's home",
        pattern=r"^(~?/)[^\x00-\x1f\x7f]+$",
    )
    python: str = Field(
        default="python3",
        description="Python >= 3.11 on the host, with cryptography and zstandard",
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

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
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
        began, given = time.monotonic(), ""
        if password is not None:
            given = password.get_secret_value()
            input = f"{given}\n".encode() + (input or b"")
        with self.start(argv, timeout) as process:
            code, output = Collector(process, timeout, most, began).run(input)
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
            said = "; what it said is not shown, for it may hold the secret"
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


class LocalHost(Host):
    """The machine that farside itself runs on."""

    _block_type_name: ClassVar[str | None] = "farside local host"
    _block_type_slug: ClassVar[str | None] = "farside-local-host"
    _description: ClassVar[str | None] = "The machine that farside itself runs on."

    kind: Literal["local"] = Field(default="local", description="Commands run here")
    name: str = Field(default="local", description="What the plan calls this host", min_length=1)
    address: Address = Field(
        default="127.0.0.1", description="IP address or DNS name", min_length=1
    )

    def _start(self, argv: Sequence[str]) -> Process:
        try:
            popen = subprocess.Popen(
                # Through a shell like SSH's, so that a missing program ends with 127 here as well.
                ["/bin/sh", "-c", 'exec "$@"', "sh", *argv],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=os.environ | PLAIN,
            )
        except OSError as error:
            raise CommandNotStarted(
                f"{argv[0]}: {error.strerror or error}",
                operation="run",
                domain=self.domain,
                host=self.name,
            ) from error
        return LocalProcess(self.name, self.domain, argv[0], popen).begin()

    def _put(self, data: bytes, path: str, mode: int) -> None:
        """See Host."""
        target = Path(path)
        draft = target.with_name(_draft_name(target.name))
        try:
            try:
                draft.touch(0o600, exist_ok=False)
                with draft.open("wb") as file:
                    os.fchmod(file.fileno(), mode)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise self._file_error(error, path, "put") from error

    def _get(self, path: str, most: int) -> bytes:
        """See Host."""
        try:
            with Path(path).open("rb") as file:
                return file.read(most + 1)
        except OSError as error:
            raise self._file_error(error, path, "get") from error

    def close(self) -> None:
        """See Host; there is nothing to close."""


class SSHHost(Host):
    """A host reached over SSH, with one key of ours and its host key pinned.

    One connection serves all threads; every command and file has a channel of its own. No agent,
    no key that is not named here, no known_hosts file. The account's login shell must be a
    POSIX one.
    """

    _block_type_name: ClassVar[str | None] = "farside SSH host"
    _block_type_slug: ClassVar[str | None] = "farside-ssh-host"
    _description: ClassVar[str | None] = "A host reached over SSH with a pinned host key."

    kind: Literal["ssh"] = Field(default="ssh", description="Commands run over SSH")
    port: int = Field(default=22, ge=1, le=65535, description="Port of the SSH server")
    user: str = Field(description="Account on the host; its shell is a POSIX one", min_length=1)
    identity_file: Path = Field(
        description="Private key file (ed25519, ECDSA or RSA, no passphrase) on the orchestrator"
    )
    host_key: str = Field(
        default="",
        description="The host's public key, as in ssh-keyscan's output: 'ssh-ed25519 AAAA...'. "
        "Without it every connection is refused, and the error shows the key that was offered",
    )

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _transport: "Transport | None" = PrivateAttr(default=None)

    @field_validator("host_key")
    @classmethod
    def _is_public_key(cls, value: str) -> str:
        if value:
            _parse_public_key(value)
        return value

    def _start(self, argv: Sequence[str]) -> Process:
        from paramiko import SSHException

        channel = self._open_channel()
        try:
            # No shell stays in between: signals reach the program, and its end is seen as it is.
            plain = " ".join(f"{name}={value}" for name, value in PLAIN.items())
            text = f"export {plain}; exec {shlex.join(argv)}"
            command = text.encode("utf-8", "surrogateescape")
            self._request(channel, lambda: channel.exec_command(command))
        except TimeoutError as error:
            raise HostUnreachable(
                f"the SSH server did not start {argv[0]} within {connect_seconds():g} s",
                hint="is the host up, or does it hang?",
                **self._where("run"),
            ) from error
        except (SSHException, OSError, EOFError) as error:
            with contextlib.suppress(OSError, EOFError):
                channel.close()
            raise CommandNotStarted(
                f"the SSH server did not start {argv[0]}: {error}", **self._where("run")
            ) from error
        return SSHProcess(self.name, self.domain, argv[0], channel).begin()

    def _put(self, data: bytes, path: str, mode: int) -> None:
        """See Host."""
        target = PurePosixPath(path)
        draft = str(target.with_name(_draft_name(target.name)))
        with self._files(path, "put") as sftp:
            try:
                with sftp.open(draft, "wbx") as file:
                    # Before the first byte: the file is made with the account's umask.
                    sftp.chmod(draft, mode)
                    file.set_pipelined(True)
                    file.write(data)
                sftp.posix_rename(draft, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    sftp.remove(draft)
                raise

    def _get(self, path: str, most: int) -> bytes:
        """See Host."""
        with self._files(path, "get") as sftp, sftp.open(path, "rb") as file:
            found = file.stat()
            if stat.S_ISDIR(found.st_mode or 0):
                raise IsADirectoryError(None, "is a directory")
            if (found.st_size or 0) <= most:
                file.prefetch()
            return file.read(most + 1)

    def close(self) -> None:
        """See Host."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    @contextlib.contextmanager
    def _files(self, path: str, operation: str) -> Iterator["SFTPClient"]:
        from paramiko import SFTPClient, SFTPError, SSHException

        channel = self._open_channel()
        try:
            channel.settimeout(FILE_SECONDS)
            self._request(channel, lambda: channel.invoke_subsystem("sftp"))
            with SFTPClient(channel) as sftp:
                yield sftp
        except TimeoutError as error:
            raise ConnectionLost(
                f"no answer about {path}: {error or f'for {FILE_SECONDS:g} s'}",
                hint="is the host up, or does it hang?",
                **self._where(operation),
            ) from error
        except (SSHException, SFTPError, EOFError, OSError) as error:
            raise self._file_service_error(error, path, operation) from error
        finally:
            with contextlib.suppress(OSError, EOFError):
                channel.close()

    def _file_service_error(self, error: Exception, path: str, operation: str) -> FarsideError:
        transport = self._transport
        if transport is None or not transport.is_active():
            return ConnectionLost(f"the connection broke at {path}", **self._where(operation))
        if isinstance(error, OSError):
            return self._file_error(error, path, operation)
        return CommandNotStarted(
            f"the SSH server's file service failed at {path}: {error}",
            hint="does it offer SFTP to this account?",
            **self._where(operation),
        )

    def _request(self, channel: "Channel", ask: Callable[[], None]) -> None:
        """Ask for something to be started; paramiko itself would wait for ever for the answer.

        Raises TimeoutError, after which the channel is closed: that ends the wait, too.
        """
        limit = connect_seconds()
        late = partial(TimeoutError, f"its service did not start within {limit:g} s")
        try:
            within(limit, ask, late=late)
        except TimeoutError:
            briefly(channel.close)
            raise

    def _open_channel(self) -> "Channel":
        from paramiko import ChannelException, SSHException

        transport = self._connection()
        try:
            return self._opened_channel(transport)
        except ChannelException as error:
            raise HostUnreachable(
                f"the SSH server opens no further channel: {error}",
                hint="raise MaxSessions in its configuration",
                **self._where("connect"),
            ) from error
        except (SSHException, OSError, EOFError) as error:
            briefly(transport.close)  # it does not answer: the next use makes a new one
            raise HostUnreachable(
                f"the connection that there was does not answer: {error}",
                hint="is the host up, or does it hang?",
                **self._where("connect"),
            ) from error

    def _opened_channel(self, transport: "Transport") -> "Channel":
        # Its own time limit is by the wall clock, and covers only the wait for the answer.
        limit = connect_seconds()
        late = partial(TimeoutError, f"no channel within {limit:g} s")
        return within(
            limit,
            lambda: transport.open_session(timeout=limit),
            late=late,
            discard=lambda channel: briefly(channel.close),
        )

    def _connection(self) -> "Transport":
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = self._connect()
            return self._transport

    def _connect(self) -> "Transport":
        from paramiko import SSHException

        self.note_address(self.address, self.port)
        identity = self._identity()
        self.note("credential", _credential(identity), str(self.identity_file))
        transport = self._handshake()
        try:
            self._check_host_key(transport.get_remote_server_key())
            self._authenticate(transport, identity)
            self._check_shell(transport)
        except (SSHException, OSError, EOFError) as error:
            transport.close()
            raise HostUnreachable(
                f"{self.address} port {self.port} broke off: {error}", **self._where("connect")
            ) from error
        except PermanentError:
            transport.close()
            raise
        transport.set_keepalive(KEEPALIVE_SECONDS)
        return transport

    def credentials(self) -> set[str]:
        """See DomainPart; none where the key file cannot be used."""
        try:
            return {_credential(self._identity())}
        except AuthenticationRefused:
            return set()

    def _identity(self) -> "PKey":
        from paramiko import PKey

        path = self.identity_file.expanduser()
        try:
            return PKey.from_path(path)
        except Exception as error:  # paramiko and cryptography raise many kinds here
            reason = error.strerror if isinstance(error, OSError) else "not a usable private key"
            raise AuthenticationRefused(
                f"key file {path}: {reason}",
                hint="name an ed25519, ECDSA or RSA private key without passphrase, readable here",
                **self._where("connect"),
            ) from error

    def _handshake(self) -> "Transport":
        from paramiko import SSHException

        from blocks.hosts.transport import OrderedTransport

        transport = None
        try:
            transport = OrderedTransport(_connected_socket(self.address, self.port))
            transport.set_log_channel(_quiet_log_channel())
            transport.banner_timeout = transport.handshake_timeout = connect_seconds()
            transport.auth_timeout = transport.channel_timeout = connect_seconds()
            self._prefer_pinned_type(transport)
            transport.start_client(timeout=connect_seconds())
            if not transport.initial_kex_done:
                raise SSHException(f"no key exchange within {connect_seconds():g} s")
            return transport
        except (SSHException, OSError, EOFError) as error:
            if transport is not None:
                transport.close()
            raise HostUnreachable(
                f"no SSH connection to {self.address} port {self.port}: {error}",
                hint="is the host up, and its SSH server listening there?",
                **self._where("connect"),
            ) from error

    def _prefer_pinned_type(self, transport: "Transport") -> None:
        """Ask for the pinned kind of key first: a server has several, and any would differ."""
        pinned = self.host_key.split()[:1]
        wanted = ["rsa-sha2-512", "rsa-sha2-256"] if pinned == ["ssh-rsa"] else pinned
        options = transport.get_security_options()
        known = list(options.key_types)
        first = [kind for kind in wanted if kind in known]
        options.key_types = first + [kind for kind in known if kind not in first]

    def _check_host_key(self, offered: "PKey") -> None:
        blob = offered.asbytes()
        got = f"{offered.get_name()} {_fingerprint(blob)}"
        if not self.host_key:
            raise HostKeyMismatch(
                f"no host key is pinned for {self.address} port {self.port}; it offers {got}",
                hint="compare that with the host's console, then pin host_key: "
                f"{offered.get_name()} {base64.b64encode(blob).decode()}",
                **self._where("connect"),
            )
        kind, pinned = _parse_public_key(self.host_key)
        if blob != pinned:
            raise HostKeyMismatch(
                f"{self.address} port {self.port} shows another host key than the pinned one: "
                f"expected {kind} {_fingerprint(pinned)}, got {got}",
                hint="if the host was reinstalled, compare the key with its console and pin the "
                "new one; otherwise somebody may be in between",
                **self._where("connect"),
            )

    def _authenticate(self, transport: "Transport", identity: "PKey") -> None:
        from paramiko import AuthenticationException

        try:
            missing = transport.auth_publickey(self.user, identity)
        except AuthenticationException as error:
            raise self._refused(identity) from error
        if missing:
            raise self._refused(identity)

    def _check_shell(self, transport: "Transport") -> None:
        """Every command begins with the account's shell, whose words nothing could tell apart."""
        mark = secrets.token_hex(8)
        said, limit = bytearray(), connect_seconds()
        channel = self._opened_channel(transport)
        try:
            channel.settimeout(limit)
            ask = f'export FARSIDE_MARK={mark}; echo "$FARSIDE_MARK"'  # no POSIX shell, no mark
            self._request(channel, lambda: channel.exec_command(ask.encode()))
            while len(said) < _NOISE and (data := channel.recv(_NOISE)):
                said += data
        finally:
            briefly(channel.close)
        noise, found, _ = said.decode(errors="replace").partition(mark)
        if noise or not found:
            raise ShellNotQuiet(
                f"the shell of {self.user} prints something when a command is run: "
                f"{noise.strip()[:200]!r}",
                hint="let the account's start-up files (~/.bashrc, /etc/profile.d) print only in "
                "a terminal, and let its shell be a POSIX one",
                **self._where("connect"),
            )

    def _refused(self, identity: "PKey") -> AuthenticationRefused:
        return AuthenticationRefused(
            f"{self.address} port {self.port} refuses {self.user} with the key of "
            f"{self.identity_file} ({_fingerprint(identity.asbytes())})",
            hint="put its public half into the account's authorized_keys",
            **self._where("connect"),
        )

    def _where(self, operation: str) -> dict[str, str]:
        return {"operation": operation, "domain": self.domain, "host": self.name}


AnyHost = Annotated[SSHHost | LocalHost, Field(discriminator="kind")]
"""Any kind of host, told apart by `kind`."""


def _program(argv: Sequence[str]) -> str:
    """What runs in the end: `env` only changes variables for the words behind it."""
    if argv[0] != "env":
        return argv[0]
    behind = (word for word in argv if "=" not in word and not word.startswith("-"))
    return next((word for word in behind if word != "env"), argv[0])


def _connected_socket(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port), timeout=connect_seconds())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A host that vanished acknowledges nothing: break the connection instead of waiting on it.
        limit = DEAD_PEER_SECONDS * 1000
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
    return connection


def _quiet_log_channel() -> str:
    """A logger for paramiko, which prints tracebacks of errors that reach the caller anyway."""
    name = "paramiko.farside"
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    return name


def _parse_public_key(line: str) -> tuple[str, bytes]:
    """The kind and the bytes of a public key line; raises ValueError."""
    words = line.split()
    try:
        kind, blob = words[0], base64.b64decode(words[1], validate=True)
        (length,) = struct.unpack_from(">I", blob)
    except (IndexError, binascii.Error, struct.error):
        raise ValueError("not a public key; expected one like 'ssh-ed25519 AAAA...'") from None
    if blob[4 : 4 + length] != kind.encode():
        raise ValueError(f"the key's text does not hold a key of type {kind}")
    return kind, blob


def _fingerprint(blob: bytes) -> str:
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _credential(key: "PKey") -> str:
    return f"ssh key {_fingerprint(key.asbytes())}"


def _draft_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}.part"
