"""etcd through a host's own etcdctl: no driver, no tunnel, no password outside standard input."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import SecretStr

from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.hosts import Host

T = TypeVar("T")

_PROMPT = "Password: "
_PAGE = 1000
_AT_ONCE = 5  # commands on one host, whose SSH server allows ten
_NOT_THERE = re.compile(
    r"context deadline exceeded|connection refused|no leader|unhealthy cluster|unavailable"
    r"|transport is closing|leader changed|i/o timeout|broken pipe|connection reset",
    re.IGNORECASE,
)
_COMPACTED = re.compile(r"required revision has been compacted")
_REFUSED = re.compile(r"authentication failed|invalid auth token|user name (is empty|not found)")
_FORBIDDEN = re.compile(r"permission denied")
_UNTRUSTED = re.compile(r"x509:|tls: |certificate")


class LoginRefused(PermanentError):
    """The cluster does not let this user in."""

    finding = "login-missing"


class NotAllowed(LoginRefused):
    """The cluster lets this user in, but not do this."""


class Untrusted(PermanentError):
    """A member's certificate is not vouched for."""

    finding = "ca-unknown"


class Compacted(TransientError):
    """The revision that was asked for is no longer kept."""


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

    def text(self, *words: str, flags: Sequence[str] = (), timeout: float | None = None) -> str:
        """What a command prints. Raises LoginRefused, Untrusted, PermanentError, TransientError."""
        seconds = timeout or self.timeout
        shown = [f"--cert={self.cert_file}", f"--key={self.key_file}"] if self.cert_file else []
        argv = [
            f"{self.bin_dir}/etcdctl",
            f"--endpoints={','.join(self.endpoints)}",
            f"--cacert={self.ca_file}",
            *shown,
            *([f"--user={self.user}"] if self.user else []),
            "--dial-timeout=5s",
            f"--command-timeout={int(seconds)}s",
            *flags,
            *words,
        ]
        secret = f"{self.password.get_secret_value()}\n".encode()
        done = self.host.run(argv, input=secret, timeout=seconds + 15, check=False)
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

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="etcd") as pool:
            return dict(zip(self.endpoints, pool.map(asked, self.endpoints), strict=True))

    def json(self, *words: str, timeout: float | None = None) -> Any:
        """What a command prints, as JSON. Raises as `text`."""
        return json.loads(self.text(*words, flags=("--write-out=json",), timeout=timeout))

    def status(self) -> Any:
        """What one member says of itself. Raises as `text`."""
        (row,) = self.json("endpoint", "status")
        return row["Status"]

    def hash(self, revision: int) -> tuple[str, int]:
        """One member's hash of all keys at a revision, and the revision that is compacted there.

        Raises as `text`; Compacted, where that revision is no longer kept.
        """
        try:
            (row,) = self.json("endpoint", "hashkv", f"--rev={revision}", timeout=600)
        except Compacted:
            # Before 3.4.27 and 3.5.8 there is none of the compacted revision itself by its number.
            (row,) = self.json("endpoint", "hashkv", timeout=600)
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
        return int(self.json("get", *words, "--limit=1", "--keys-only").get("count", 0))

    def all(self, prefix: str, revision: int = 0) -> Iterator[KeyValue]:
        """All keys that begin with `prefix`, page by page; those of now, or at a revision.

        Raises as `text`.
        """
        last, seen = _word(prefix.encode()), b""
        end = [after] if (after := _after(prefix.encode())) else []
        bounds = [] if end else ["--from-key"]
        while True:
            # A page begins with the last of the one before: no argument can hold what follows it.
            page = self.get(*bounds, f"--limit={_PAGE}", f"--rev={revision}", "--", last, *end)
            yield from (item for item in page if item.key != seen)
            if len(page) < _PAGE:
                return
            seen = page[-1].key
            last = _word(seen)

    def digest(self, revision: int) -> str:
        """SHA-256 of all keys at a revision, with all that etcd keeps of each. Raises as `text`.

        Unlike etcd's own hash it does not depend on what was compacted.
        """
        found = hashlib.sha256()
        for item in self.all("", revision):
            numbers = (len(item.key), len(item.value), item.created, item.revision, item.version)
            found.update(f"{numbers} {item.lease} ".encode() + item.key + item.value)
        return found.hexdigest()

    def put(self, key: str, value: str) -> None:
        """Commit a value; it is no secret. Raises as `text`."""
        self.text("put", key, value)

    def _error(self, command: str, stderr: str) -> PermanentError | TransientError:
        text = "; ".join(dict.fromkeys(_said(stderr)))[-500:] or "etcdctl failed without a word"
        where = f"{command} as {self.user!r} at {', '.join(self.endpoints)}"
        kinds: Sequence[tuple[re.Pattern[str], type[PermanentError | TransientError], str]] = (
            (_REFUSED, LoginRefused, "check the user and its password in the vault"),
            (_FORBIDDEN, NotAllowed, "check the user's roles"),
            (_UNTRUSTED, Untrusted, "compare the members' certificates with the plan's ca_file"),
            (_NOT_THERE, TransientError, "see whether the members run and have a leader"),
            (_COMPACTED, Compacted, "its history was compacted just now: take it once more"),
        )
        kind, hint = next(
            ((kind, hint) for pattern, kind, hint in kinds if pattern.search(text)),
            (PermanentError, ""),
        )
        return kind(
            f"{where}: {text}",
            operation="etcdctl",
            domain=self.host.domain,
            host=self.host.name,
            hint=hint,
        )


def _said(stderr: str) -> Iterator[str]:
    """The causes in what etcdctl wrote: a line of JSON for its log, plain ones for the rest."""
    for line in stderr.splitlines():
        if line.startswith("{"):
            with suppress(ValueError):
                yield str(json.loads(line).get("error", "")).rpartition("desc = ")[2].strip('"')
        elif line and not line.startswith("stty:"):
            yield line.removeprefix("Error: ").strip()


def _word(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _after(prefix: bytes) -> str:
    """The first key behind all that begin with `prefix`; empty if there is none."""
    bare = prefix.rstrip(b"\xff")
    return _word(bare[:-1] + bytes([bare[-1] + 1])) if bare else ""
