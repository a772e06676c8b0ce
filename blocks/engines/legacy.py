"""Temporary: engines that are not converted yet, behind the contract of `Engine` and `Restored`.

Goes with the last of them.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

from typing_extensions import override

from blocks.domain import FailureDomain
from blocks.engines.checks import Answer, CheckSpec, SqlQuestion, Ticks, listed
from blocks.engines.engine import Engine
from blocks.engines.facts import Facts, Peer
from blocks.engines.restoration import Restoration
from blocks.engines.restored import References, Restored
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, CheckStatus, Node, SourceNode
from blocks.ownership import Belongings

AnyFacts = Any
"""Facts, as engines that are not converted read them: by string."""


@dataclass(frozen=True, slots=True)
class Service:
    """A restored service, as engines that are not converted describe it."""

    rehearsal_id: str
    host: str
    address: str
    port: int
    controls: Mapping[str, str]
    administrator: str
    reach: str
    nodes: tuple[Node, ...]
    checks: tuple[Check, ...] = ()
    major: int = 0


class LegacyFacts(Mapping[str, Any], Facts):
    """Plain JSON, as facts."""

    _engine: "LegacyEngine"
    _said: Mapping[str, Any]

    def __init__(self, engine: "LegacyEngine", said: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_engine", engine)
        object.__setattr__(self, "_said", said)

    @override
    def __getitem__(self, name: str) -> Any:
        return self._said[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    @override
    def __len__(self) -> int:
        return len(self._said)

    @override
    def to_json(self) -> Mapping[str, Any]:
        return dict(self)

    @override
    def source_nodes(self) -> tuple[SourceNode, ...] | None:
        return self._engine.source_nodes(self)

    @override
    def peers(self) -> tuple[Peer, ...]:
        return self._engine.peers(self)


class LegacyEngine(Engine, ABC):
    """An engine with the old methods."""

    growing: ClassVar[frozenset[str]] = frozenset()
    """Checks whose time grows with the size of the data."""

    def check_facts(self, facts: Any) -> None:
        """Raise PermanentError unless the facts of a manifest have the form that is needed."""

    def source_nodes(self, facts: Any) -> tuple[SourceNode, ...] | None:
        """They say so as `nodes`, an object with the fields of SourceNode for each."""
        nodes = facts.get("nodes")
        return None if nodes is None else tuple(SourceNode(**node) for node in nodes)

    def peers(self, facts: Any) -> tuple[Peer, ...]:
        """With what the live source works."""
        nodes = self.source_nodes(facts) or ()
        return tuple(Peer(node.name, node.address, True) for node in nodes if node.address)

    @abstractmethod
    def bring_up(self, using: Restoration) -> Service:
        """Bring the service up from the set, isolated."""

    @abstractmethod
    def verify(
        self, service: Service, using: Any, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """Prove the service, one check after the other."""

    def survive(self, service: Service, using: Any) -> Iterator[Check]:  # noqa: ARG002
        """Kill a node, where the shape allows it, and prove that the others serve."""
        yield from ()

    @abstractmethod
    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:
        """The one value that a query yields in the restored service."""

    @abstractmethod
    def dependencies(
        self, service: Service, using: Any, foreign: Belongings, unseen: list[str]
    ) -> list[Finding]:
        """What in the restored service names something `foreign`."""

    @abstractmethod
    def not_verified(self, facts: Any) -> list[str]:
        """What of such a source no check of this engine looks at."""

    @abstractmethod
    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:
        """Time of the newest transaction in the restored data."""

    def end_of_replay(self, service: Service, recovery: FailureDomain) -> int | None:  # noqa: ARG002
        """Up to where the restored service had replayed the source's log."""
        return None

    @abstractmethod
    def ticks(self, service: Service, recovery: FailureDomain, database: str, table: str) -> Ticks:
        """What the restored heartbeat table holds."""

    @abstractmethod
    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """Stop the service at once."""

    @override
    def read_facts(self, said: Mapping[str, Any]) -> Facts:
        self.check_facts(said)
        return LegacyFacts(self, said)

    @override
    def restore(self, using: Restoration) -> "LegacyRestored":
        return LegacyRestored(self, using, self.bring_up(using))


class LegacyRestored(Restored):
    """A service of an engine that is not converted."""

    def __init__(self, engine: LegacyEngine, using: Restoration, service: Service) -> None:
        super().__init__(
            using,
            nodes=service.nodes,
            host=service.host,
            reach=service.reach,
            checks=service.checks,
        )
        self.engine, self.service = engine, service

    def _specs(self, checks: Iterator[Check]) -> Iterator[CheckSpec]:
        """Each check has been made when its CheckSpec is there."""
        for check in checks:
            answer = Answer(
                check.status,
                check.actual,
                check.detail,
                check.seconds,
                check.subjects,
                check.evidence,
            )
            grows = check.name.rpartition(" ")[2] in self.engine.growing
            expected = check.expected or ""
            yield CheckSpec(check.name, expected, lambda a=answer: a, check.finding, grows)  # type: ignore[misc]

    @override
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        return self._specs(self.engine.verify(self.service, self.using, questions))

    @override
    def integrity(self) -> Iterator[CheckSpec]:
        yield from ()

    @override
    def failover(self) -> CheckSpec | None:
        return next(self._specs(self.engine.survive(self.service, self.using)), None)

    @override
    def query(self, database: str, query: str) -> str:
        return self.engine.value(self.service, self.using.recovery, database, query)

    @override
    def newest_transaction(self) -> datetime | None:
        return self.engine.recovered_until(self.service, self.using.recovery)

    @override
    def heartbeat(self, database: str, table: str) -> Ticks:
        return self.engine.ticks(self.service, self.using.recovery, database, table)

    @override
    def references(self, foreign: Belongings) -> References:
        unseen = list[str]()
        found = self.engine.dependencies(self.service, self.using, foreign, unseen)
        return References(tuple(found), tuple(unseen))

    @override
    def end_of_replay(self) -> int | None:
        return self.engine.end_of_replay(self.service, self.using.recovery)

    @property
    @override
    def not_verified(self) -> list[str]:
        return self.engine.not_verified(self.using.facts)

    @override
    def stop(self) -> None:
        self.engine.destroy(self.service, self.using.recovery)


def guarded(name: str, expected: str, run: Callable[[], Check]) -> Iterator[Check]:
    """What `run` finds; if it breaks, the check could not run, and says why."""
    try:
        yield run()
    except FarsideError as error:
        yield Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {error.message}")
    except Exception as error:  # a mistake in one check takes no other's answer away
        text = f"could not run: {type(error).__name__}: {error}"
        yield Check(name, CheckStatus.UNKNOWN, expected, text)


def checked(
    name: str,
    expected: str,
    wrong: Sequence[str],
    right: str,
    *,
    finding: str,
    subjects: tuple[str, ...] = (),
) -> Check:
    """A check that failed if anything is `wrong`; else it found what is `right`."""
    status = CheckStatus.FAILED if wrong else CheckStatus.PASSED
    actual = listed(wrong) or right
    return Check(name, status, expected, actual, subjects=subjects, finding=finding)


def asked(question: SqlQuestion, ask: Callable[[], str | None]) -> Check:
    """A question of the plan, by `ask`; raises what that raises."""
    found, seconds = None, []
    for _ in range(2):
        began = time.monotonic()
        found = ask()
        seconds.append(round(time.monotonic() - began, 3))
    status = CheckStatus.PASSED if found == question.expected else CheckStatus.FAILED
    check = Check(question.name, status, question.expected, "NULL" if found is None else found)
    return replace(check, seconds=(seconds[0], seconds[1]))
