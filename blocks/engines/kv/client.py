"""etcd through a host's own etcdctl: no driver, no tunnel, no password outside standard input."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.hosts import Host

_PROMPT = "Password: "
_PAGE = 1000
_AT_ONCE = 5  # commands on one host, whose SSH server allows ten
_NOT_THERE = re.compile(
    r"context deadline exceeded|connection refused|no leader|unhealthy cluster|unavailable"
    r"|transport is closing|leader changed|i/o timeout|broken pipe|connection reset",
    re.IGNORECASE,
)
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


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key, its value, and the revision of its last change."""

    key: bytes
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Etcdctl:
    """A user of one cluster (an empty name: nobody), reached by the etcdctl of `host`."""

    host: Host
    bin_dir: str
    endpoints: tuple[str, ...]
    ca_file: str
    user: str
    password: SecretStr
    timeout: float = 60.0

    def at(self, *endpoints: str) -> "Etcdctl":
        """The same, asking these members only."""
        return replace(self, endpoints=endpoints)

    def as_nobody(self) -> "Etcdctl":
        """The same, without a login."""
        return replace(self, user="", password=SecretStr(""))

    def text(self, *words: str, timeout: float | None = None) -> str:
        """What a command prints. Raises LoginRefused, Untrusted, PermanentError, TransientError."""
        seconds = timeout or self.timeout
        argv = [
            f"{self.bin_dir}/etcdctl",
            f"--endpoints={','.join(self.endpoints)}",
            f"--cacert={self.ca_file}",
            *([f"--user={self.user}"] if self.user else []),
            "--dial-timeout=5s",
            f"--command-timeout={int(seconds)}s",
            *words,
        ]
        secret = f"{self.password.get_secret_value()}\n".encode()
        done = self.host.run(argv, input=secret, timeout=seconds + 15, check=False)
        if done.exit_code == 0:
            # It asks for the password, and ends the line after having read it.
            return done.stdout.decode(errors="replace").removeprefix(_PROMPT).removeprefix("\n")
        raise self._error(words[0], done.stderr.decode(errors="replace"))

    def of_each(self, *words: str, timeout: float | None = None) -> dict[str, Any]:
        """Endpoint -> what a command prints of that member alone, as JSON, or why it does not.

        They are asked side by side: a dead one costs its time limit once, however many are dead.
        """

        def ask(endpoint: str) -> Any:
            try:
                return self.at(endpoint).json(*words, timeout=timeout)
            except FarsideError as error:
                return error

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="etcd") as pool:
            return dict(zip(self.endpoints, pool.map(ask, self.endpoints), strict=True))

    def json(self, *words: str, timeout: float | None = None) -> Any:
        """What a command prints, as JSON. Raises as `text`."""
        return json.loads(self.text(*words, "--write-out=json", timeout=timeout))

    def get(self, *words: str) -> list[KeyValue]:
        """The keys that `etcdctl get WORDS` finds. Raises as `text`."""
        return [
            KeyValue(
                base64.b64decode(item["key"]),
                base64.b64decode(item.get("value", "")),
                int(item["mod_revision"]),
            )
            for item in self.json("get", *words).get("kvs", ())
        ]

    def count(self, *words: str) -> int:
        """How many keys `etcdctl get WORDS` finds. Raises as `text`."""
        # etcd 3.4 has no --count-only; a limit does not limit what it counts.
        return int(self.json("get", *words, "--limit=1", "--keys-only").get("count", 0))

    def all(self, prefix: str) -> Iterator[KeyValue]:
        """All keys that begin with `prefix`, page by page. Raises as `text`."""
        last, end = _word(prefix.encode()), _after(prefix.encode())
        bounds, seen = [end] if end else ["--from-key"], b""
        while True:
            # A page begins with the last of the one before: no argument can hold what follows it.
            page = self.get(last, *bounds, f"--limit={_PAGE}")
            yield from (item for item in page if item.key != seen)
            if len(page) < _PAGE:
                return
            seen = page[-1].key
            last = _word(seen)

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
