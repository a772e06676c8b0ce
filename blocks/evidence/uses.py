"""The ledger of uses: everything a rehearsal depended on, with the domain that it belongs to.

Blocks write it themselves, so it is complete by construction: what goes through a block is
noted.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from blocks.evidence.moments import Moment
from blocks.evidence.schema import DESCRIBED

UseKind = Literal["host", "tool", "object", "key", "address", "name", "certificate", "credential"]


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that a stage depended on."""

    __pydantic_config__ = DESCRIBED

    stage: str
    """The stage that used it."""
    at: Moment
    """When it was first used there."""
    kind: UseKind
    """What it is."""
    name: str
    """Which one."""
    domain: str
    """The failure domain that it belongs to: `orchestrator` for what is farside's own, empty where
    it cannot be attributed."""
    detail: str = ""
    """What else is known: a tool's path, version and package, the addresses that a name led to, a
    credential's file."""


ORCHESTRATOR = "orchestrator"
"""The domain of what belongs to farside itself: it must outlive the source."""


class Ledger:
    """Collects uses; the same thing used twice in one stage is noted once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage = ""
        self._uses: dict[tuple[str, UseKind, str, str], Use] = {}

    def enter(self, stage: str) -> None:
        """From here on, uses belong to `stage`."""
        with self._lock:
            self._stage = stage

    def note(self, kind: UseKind, name: str, domain: str, detail: str = "") -> None:
        """Note that `name` of `domain` was used now."""
        if _unnoted.get():
            return
        with self._lock:
            key = (self._stage, kind, name, domain)
            if key not in self._uses:
                now = datetime.now(UTC)
                self._uses[key] = Use(self._stage, now, kind, name, domain, detail)

    def describe(self, kind: UseKind, name: str, detail: str) -> None:
        """Add what has become known of `name`, in every stage that used it."""
        with self._lock:
            for key, use in self._uses.items():
                if (use.kind, use.name) == (kind, name):
                    self._uses[key] = replace(use, detail=detail)

    def uses(self) -> tuple[Use, ...]:
        """All uses so far, in order."""
        with self._lock:
            return tuple(self._uses.values())


_current = Ledger()
_unnoted = ContextVar("unnoted", default=False)


@contextmanager
def unnoted() -> Iterator[None]:
    """What is used inside, by this thread and what it waits for, is no use: no stage needs it."""
    former = _unnoted.set(True)
    try:
        yield
    finally:
        _unnoted.reset(former)


def ledger() -> Ledger:
    """The ledger of the rehearsal that this process runs."""
    return _current


@contextmanager
def new_ledger() -> Iterator[Ledger]:
    """A fresh ledger for one rehearsal; the former one comes back at the end."""
    global _current
    former, _current = _current, Ledger()
    try:
        yield _current
    finally:
        _current = former
