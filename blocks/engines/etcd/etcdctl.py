"""etcd through a host's own etcdctl: no driver, no tunnel, no password outside standard input."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import SecretStr

from blocks.agent.redaction import redacted
from blocks.artifact import wire
from blocks.engines.etcd import on_host
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote.jobs import run_program
from blocks.workers import Workers

T = TypeVar("T")

_PROMPT = "Password: "
HASH_SECONDS = 600.0
_PAGE = 1000
_PAGES_ALIKE = 16
_WORD_BYTES = 2**14
"""So much of a key is an argument: Linux takes 128 KiB at most, with a shell's quotes."""
_AT_ONCE = 5  # commands on one host, whose SSH server allows ten
_AMBIENT = (
    *(f"ETCDCTL_{name}" for name in (
        *("ENDPOINTS", "CACERT", "CERT", "KEY", "USER", "PASSWORD", "API", "WRITE_OUT", "HEX"),
        *("DIAL_TIMEOUT", "COMMAND_TIMEOUT", "KEEPALIVE_TIME", "KEEPALIVE_TIMEOUT", "DEBUG"),
        *("DISCOVERY_SRV", "DISCOVERY_SRV_NAME", "INSECURE_DISCOVERY", "INSECURE_TRANSPORT"),
        *("INSECURE_SKIP_TLS_VERIFY", "AUTH_JWT_TOKEN", "MAX_REQUEST_BYTES", "MAX_RECV_BYTES"),
    )),
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
)  # fmt: skip
"""What an account's environment may tell etcdctl: where it differs from an option, it refuses."""
ALONE = ("env", *(f"-u{name}" for name in _AMBIENT))
"""What a command of etcd's stands behind, so that it is told nothing but by its options."""
_CODE = re.compile(r"rpc error: code = (\w+) desc = ")
_UNTRUSTED = re.compile(r"\b(x509|tls): ")
"""What Go's TLS says, which has no codes, and one language."""


class LoginRefused(PermanentError):
    """The cluster does not let this user in."""

    finding = FindingId.LOGIN_MISSING


class NotAllowed(LoginRefused):
    """The cluster lets this user in, but not do this."""


class Untrusted(PermanentError):
    """A member's certificate is not vouched for."""

    finding = FindingId.CA_UNKNOWN


class Compacted(TransientError):
    """The revision that was asked for is no longer kept."""


class NoSpace(PermanentError):
    """The cluster takes no writes: its space is used up, or an alarm says that it was."""

    finding = FindingId.USABLE_NOT_RESTORED


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key and its value; when it was made and last changed, how often, and for how long."""

    key: bytes
    value: bytes
    created: int
    revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Etcdctl:
    """A user of one cluster (an empty name: nobody), reached by the etcdctl of `host`."""

    host: Host
    bin_dir: str
    endpoints: tuple[str, ...]
    ca_file: str
    user: str
    password: SecretStr
    cert_file: str = ""
    key_file: str = ""
    """What it shows of itself, where members ask for it; empty: nothing."""
    timeout: float = 60.0

    def at(self, *endpoints: str) -> "Etcdctl":
        """The same, asking these members only."""
        return replace(self, endpoints=endpoints)

    def as_nobody(self) -> "Etcdctl":
        """The same, without a login."""
        return replace(self, user="", password=SecretStr(""))

    def without_certificate(self) -> "Etcdctl":
        """The same, with nothing to show."""
        return replace(self, cert_file="", key_file="")

    def argv(self, seconds: float) -> tuple[str, ...]:
        """The program and its options; a command's words follow."""
        shown = (f"--cert={self.cert_file}", f"--key={self.key_file}") if self.cert_file else ()
        return (
            *ALONE,
            f"{self.bin_dir}/etcdctl",
            f"--endpoints={','.join(self.endpoints)}",
            f"--cacert={self.ca_file}",
            *shown,
            *((f"--user={self.user}",) if self.user else ()),
            f"--dial-timeout={min(5, int(seconds))}s",
            f"--command-timeout={int(seconds)}s",
        )

    def text(self, *words: str, flags: Sequence[str] = (), timeout: float | None = None) -> str:
        """What a command prints. Raises LoginRefused, Untrusted, PermanentError, TransientError."""
        seconds = timeout or self.timeout
        argv = [*self.argv(seconds), *flags, *words]
        done = self.host.run(argv, password=self.password, timeout=seconds + 15, check=False)
        if done.exit_code == 0:
            # It asks for the password, and ends the line after having read it.
            return done.stdout.decode(errors="replace").removeprefix(_PROMPT).removeprefix("\n")
        raise self._error(words[0], done.stderr.decode(errors="replace"))

    def of_each(self, ask: Callable[["Etcdctl"], T]) -> dict[str, T | FarsideError]:
        """Endpoint -> what is asked of that member alone, or why it does not answer.

        They are asked side by side: a dead one costs its time limit once, however many are dead.
        """

        def asked(endpoint: str) -> T | FarsideError:
            try:
                return ask(self.at(endpoint))
            except FarsideError as error:
                return error

        with Workers(_AT_ONCE, "etcd") as pool:
            return dict(zip(self.endpoints, pool.map(asked, self.endpoints), strict=True))

    def json(self, *words: str, timeout: float | None = None) -> Any:
        """What a command prints, as JSON. Raises as `text`."""
        said = self.text(*words, flags=("--write-out=json",), timeout=timeout)
        return wire.parsed(said.rstrip().rpartition("\n")[2])  # a wrapper may print something first

    def status(self, timeout: float | None = None) -> Any:
        """What one member says of itself. Raises as `text`."""
        (row,) = self.json("endpoint", "status", timeout=timeout)
        return row["Status"]

    def hash(self, revision: int) -> tuple[str, int]:
        """One member's hash of all keys at a revision, and the revision that is compacted there.

        Raises as `text`; Compacted, where that revision is no longer kept.
        """
        try:
            (row,) = self.json("endpoint", "hashkv", f"--rev={revision}", timeout=HASH_SECONDS)
        except Compacted:
            # Before 3.4.27 and 3.5.8 there is none of the compacted revision itself by its number.
            (row,) = self.json("endpoint", "hashkv", timeout=HASH_SECONDS)
            if int(row["HashKV"]["header"]["revision"]) != revision:
                raise
        return str(row["HashKV"]["hash"]), int(row["HashKV"]["compact_revision"])

    def get(self, *words: str) -> list[KeyValue]:
        """The keys that `etcdctl get WORDS` finds. Raises as `text`."""
        return [
            KeyValue(
                base64.b64decode(item["key"]),
                base64.b64decode(item.get("value", "")),
                int(item["create_revision"]),
                int(item["mod_revision"]),
                int(item["version"]),
                int(item.get("lease", 0)),
            )
            for item in self.json("get", *words).get("kvs", ())
        ]

    def count(self, *words: str) -> int:
        """How many keys `etcdctl get WORDS` finds. Raises as `text`."""
        # etcd 3.4 has no --count-only; a limit does not limit what it counts.
        return int(self.json("get", "--limit=1", "--keys-only", *words).get("count", 0))

    def all(self, prefix: str, revision: int = 0) -> Iterator[KeyValue]:
        """All keys that begin with `prefix`, page by page; those of now, or at a revision.

        Raises as `text`; PermanentError, where too many keys are alike up to a NUL byte,
        or for `_WORD_BYTES`.
        """
        last, seen, limit = _word(prefix.encode()), b"", _PAGE
        end = [after] if (after := _after(prefix.encode())) else []
        bounds = [] if end else ["--from-key"]
        while True:
            # A page begins with the last of the one before: no argument can hold what follows it.
            page = self.get(*bounds, f"--limit={limit}", f"--rev={revision}", "--", last, *end)
            fresh = [item for item in page if item.key > seen]
            yield from fresh
            if len(page) < limit:
                return
            if not fresh:  # nor can it hold a NUL, or all of a long key: what is alike is one page
                limit = self._larger(limit)
                continue
            seen = page[-1].key
            last = _word(seen.partition(b"\0")[0][:_WORD_BYTES])

    def _larger(self, limit: int) -> int:
        if limit >= _PAGES_ALIKE * _PAGE:
            raise PermanentError(
                f"{limit:,} keys are alike up to a NUL byte, or for {_WORD_BYTES:,} bytes:"
                " etcdctl asks for none behind them",
                operation="etcdctl",
                domain=self.host.domain,
                host=self.host.name,
            )
        return 4 * limit

    def alarms(self) -> list[str]:
        """The kinds of the alarms that are raised, as NOSPACE. Raises as `text`."""
        raised = {
            int(item.get("alarm", 0)) for item in self.json("alarm", "list").get("alarms", ())
        }
        return [_ALARMS.get(number, f"number {number}") for number in sorted(raised)]

    def read(
        self,
        rehearsal_id: str,
        revision: int,
        foreign: Belongings | None = None,
        *,
        largest: int | None = None,
    ) -> on_host.Keys:
        """All keys at a revision (0: now), read on the host; see KeySpace. Raises as read_keys.

        `largest` is what the snapshot's file says; without it, the largest is etcd's default.
        """
        space = on_host.KeySpace(
            argv=self.argv(self.timeout),
            at=revision,
            largest=largest or on_host.LARGEST_KEY,
            secret=self.password.get_secret_value(),
            foreign=foreign or Belongings(),
        )
        return read_keys(self.host, rehearsal_id, space)

    def put(self, key: str, value: str) -> None:
        """Commit a value; it is no secret. Raises as `text`."""
        self.text("put", key, value)

    def _error(self, command: str, stderr: str) -> PermanentError | TransientError:
        text = (
            redacted("; ".join(dict.fromkeys(_said(stderr))))[-500:]
            or "etcdctl failed without a word"
        )
        where = f"{command} as {self.user!r} at {', '.join(self.endpoints)}"
        kind, hint = _kind(stderr)
        return kind(
            f"{where}: {text}",
            operation="etcdctl",
            domain=self.host.domain,
            host=self.host.name,
            hint=hint,
        )


_Kind = type[PermanentError | TransientError]
_CHECK_LOGIN = "check the user and its password in the vault"
_SEE_MEMBERS = "see whether the members run and have a leader"
_KINDS: Mapping[str, tuple[_Kind, str]] = {
    "Unauthenticated": (LoginRefused, _CHECK_LOGIN),
    "PermissionDenied": (NotAllowed, "check the user's roles"),
    "OutOfRange": (Compacted, "its history was compacted just now: take it once more"),
    "Unavailable": (TransientError, _SEE_MEMBERS),
    "DeadlineExceeded": (TransientError, _SEE_MEMBERS),
    "Unknown": (TransientError, _SEE_MEMBERS),
    "Canceled": (TransientError, _SEE_MEMBERS),
}
"""gRPC's codes, as etcd uses them."""
_BY_TEXT: Mapping[str, tuple[_Kind, str]] = {
    "etcdserver: authentication failed, invalid user ID or password": (LoginRefused, _CHECK_LOGIN),
    "etcdserver: user name is empty": (LoginRefused, _CHECK_LOGIN),
    "etcdserver: user name not found": (LoginRefused, _CHECK_LOGIN),
    "etcdserver: mvcc: database space exceeded": (
        NoSpace,
        "free space in the cluster, then `etcdctl alarm disarm`",
    ),
    "etcdserver: too many requests": (TransientError, "the members are behind: see their load"),
}
"""Errors of etcd's API, by their fixed texts, that share a code with others."""
_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}


def _kind(stderr: str) -> tuple[_Kind, str]:
    """What an error is, by the last code that etcdctl logged: it logs each try as JSON.

    A command that never reached a member has no code, and ends with Go's own text.
    """
    found = list(_CODE.finditer(stderr))
    last = _last_line(stderr)
    if last in _BY_TEXT:
        return _BY_TEXT[last]
    if _UNTRUSTED.search(stderr):
        return Untrusted, "compare the members' certificates with the plan's ca_file"
    if found:
        return _KINDS.get(found[-1][1], (PermanentError, ""))
    if last == "context deadline exceeded":
        return TransientError, _SEE_MEMBERS
    return PermanentError, ""


def _last_line(stderr: str) -> str:
    plain = [line for line in stderr.splitlines() if line and not line.startswith("{")]
    return plain[-1].removeprefix("Error: ").strip() if plain else ""


def _said(stderr: str) -> Iterator[str]:
    """The causes in what etcdctl wrote: a line of JSON for its log, plain ones for the rest."""
    for line in stderr.splitlines():
        if line.startswith("{"):
            with suppress(wire.WireError):
                yield str(wire.parsed(line).get("error", "")).rpartition("desc = ")[2].strip('"')
        elif line and not line.startswith("stty:"):
            yield line.removeprefix("Error: ").strip()


def read_keys(host: Host, rehearsal_id: str, space: on_host.KeySpace) -> on_host.Keys:
    """What a key space holds, read on its host. Raises as run_program."""
    return run_program(host, rehearsal_id, "etcd_keys", on_host.run, space)


def _word(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _after(prefix: bytes) -> str:
    """The first key behind all that begin with `prefix`; empty if there is none."""
    bare = prefix.rstrip(b"\xff")
    return _word(bare[:-1] + bytes([bare[-1] + 1])) if bare else ""
