"""A host that is reached by SSH, with a pinned host key."""

import base64
import binascii
import contextlib
import hashlib
import logging
import secrets
import shlex
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import PLAIN, Host, HostUnreachable, draft_name
from blocks.hosts.process import CommandNotStarted, ConnectionLost, Process
from blocks.hosts.ssh_process import SSHProcess
from blocks.limits import briefly, within
from blocks.settings import connect_seconds

if TYPE_CHECKING:  # paramiko is imported at the first connection: this module loads with Prefect
    from paramiko import Channel, PKey, SFTPClient, Transport


KEEPALIVE_SECONDS = 10
"""A message at least this often, so that a dead peer is noticed."""
DEAD_PEER_SECONDS = 30
"""Unacknowledged data this old breaks the connection."""
FILE_SECONDS = 60.0
"""Time limit for one answer while a file is put or got."""
_NOISE = 4096


class HostKeyMismatch(PermanentError):
    """The host showed another key than the pinned one, or none is pinned."""

    finding = FindingId.SSH_TRUST_MISSING


class AuthenticationRefused(PermanentError):
    """The host refused the user's key, or the key file cannot be used."""

    finding = FindingId.SSH_TRUST_MISSING


class ShellNotQuiet(PermanentError):
    """The account's shell prints something by itself: it would be taken for what tools say."""

    finding = FindingId.HOST_UNREACHABLE


class SSHHost(Host):
    """A host reached over SSH, with one key of ours and its host key pinned.

    One connection serves all threads; every command and file has its own channel. No agent,
    no key that is not named here, no known_hosts file. The account's login shell must be a
    POSIX one.
    """

    _block_type_name: ClassVar[str | None] = "farside SSH host"
    _block_type_slug: ClassVar[str | None] = "farside-ssh-host"
    _description: ClassVar[str | None] = "A host reached over SSH with a pinned host key."

    kind: Literal["ssh"] = Field(
        default="ssh", description="ssh: commands run over SSH, with a pinned host key."
    )
    port: int = Field(
        default=22, ge=1, le=65535, description="TCP port of the SSH server. Default: 22."
    )
    user: str = Field(
        description="Account on the host; its login shell is a POSIX one.", min_length=1
    )
    identity_file: Path = Field(
        description="Private key file on the orchestrator: ed25519, ECDSA or RSA, without a "
        "passphrase. No other key is offered, and no SSH agent is asked."
    )
    host_key: str = Field(
        default="",
        description="The host's public key, as in ssh-keyscan's output: 'ssh-ed25519 AAAA...'. "
        "Without it every connection is refused, and the error shows the key that was offered.",
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
        draft = str(target.with_name(draft_name(target.name)))
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
                f"{self.address} port {self.port} was interrupted: {error}",
                **self._where("connect"),
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
                "new one; otherwise another machine may be in between",
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
