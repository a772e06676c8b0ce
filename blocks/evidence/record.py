"""The record: the evidence of one rehearsal, one JSON document.

Times are UTC, ISO 8601 with Z. A value that is not known is null, never zero. A newer farside may
add fields; a change that older readers would misread gets another `schema_version`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, computed_field

from blocks.artifact import wire
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.files import write_atomically
from blocks.evidence.findings import Finding
from blocks.evidence.moments import Moment
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Use

SCHEMA_VERSION = 1
"""The version of the record that this farside writes, and the newest that it reads."""
STAGES = tuple(stage.value for stage in StageName)
"""The stages of a rehearsal, in order, as a record names them."""


class RecordTooNew(PermanentError):
    """The record was written by a newer farside, in a schema that this one does not read."""


class RecordMalformed(PermanentError):
    """The document is not a record."""


class Verdict(StrEnum):
    """What the rehearsal showed."""

    VERIFIED = "verified"
    """Every stage ran and every check passed."""
    PARTIAL = "partial"
    """The service came up and nothing failed, but something could not be checked or removed."""
    COULD_NOT_VERIFY = "could-not-verify"
    """The rehearsal did not get far enough to show anything, good or bad."""
    FAILED = "failed"
    """Recovery does not work: a stage of it, a check, or an assumption that it stands on."""


class CheckStatus(StrEnum):
    """How a check ended; `unknown` could not run, and never counts as passed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class StageState(StrEnum):
    """How a stage ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Step:
    """A timed part of a stage. `bytes` is what it moved; `attempt` counts from 1.

    `grows`: its time grows with the size of the data; that of other steps is taken as fixed.
    """

    name: str
    started_at: Moment
    ended_at: Moment | None
    seconds: float | None
    bytes: int | None = None
    attempt: int = 1
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the rehearsal; one that was skipped has no times and no attempts.

    `seconds` runs from the first attempt's start to the last one's end, waits included. `bytes` is
    what the stage moved; `error` is why it did not complete.
    """

    name: str
    state: StageState
    started_at: Moment | None = None
    ended_at: Moment | None = None
    seconds: float | None = None
    attempts: int = 0
    bytes: int | None = None
    steps: tuple[Step, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of the restored service.

    `detail` says how, or why it could not. `seconds` are those of the first answer and of the same
    once more, where it was asked twice. `subjects` are the things that failed, by name, where the
    check can tell them apart: each is a finding of its own, of the id `finding` and with its own
    `evidence`, which are not written down here once more.
    """

    name: str
    status: CheckStatus
    expected: str | None = None
    actual: str | None = None
    detail: str | None = None
    seconds: tuple[float, float] | None = None
    subjects: tuple[str, ...] = ()
    finding: Annotated[str, Field(exclude=True)] = field(
        default=FindingId.CHECK_FAILED, compare=False
    )
    evidence: Annotated[Mapping[str, str], Field(exclude=True)] = field(
        default_factory=dict, compare=False
    )


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One running part of the service: its role, and where it answers."""

    host: str
    role: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class SourceNode:
    """One part of what was backed up, as the source itself said; None is what it did not say."""

    name: str
    role: str
    address: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A node of the source, by name, and the recovery host whose node takes its place.

    One of them is None: the source's node is not replaced, or the recovery's has no origin.
    """

    source: str | None
    recovery: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A host whose node is not as predicted: not there, not predicted, or another one."""

    host: str
    predicted: Node | None
    observed: Node | None

    @property
    def moved(self) -> bool:
        """Whether there is a node, but in another role or at another address."""
        return self.predicted is not None and self.observed is not None


@dataclass(frozen=True, slots=True)
class Topology:
    """The shape that the recovery was to have, and the one it had; None where it is not known.

    `source` is what the backup was taken from, `mapping` what of it went where.
    """

    predicted: tuple[Node, ...] | None = None
    observed: tuple[Node, ...] | None = None
    source: tuple[SourceNode, ...] | None = None
    mapping: tuple[Counterpart, ...] | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def difference(self) -> tuple[Difference, ...] | None:
        """Where predicted and observed differ, by host; None if one of them is not known."""
        if self.predicted is None or self.observed is None:
            return None
        missing, more = set(self.predicted), set(self.observed)
        missing, more = missing - more, more - missing
        found = []
        for host in sorted({node.host for node in missing | more}):
            here = (sorted(n for n in nodes if n.host == host) for nodes in (missing, more))
            found += [Difference(host, *pair) for pair in zip_longest(*here)]
        return tuple(found)

    @property
    def as_predicted(self) -> bool | None:
        """Whether both are the same set of nodes; None if one of them is not known."""
        return None if self.difference is None else not self.difference


@dataclass(frozen=True, slots=True)
class BackupSetSummary:
    """The backup set that was restored. `bytes` is what is stored (sealed), `raw_bytes` what
    comes out of it; `selection` is how it was chosen (fresh, latest, oldest, random, or an id).
    `manifest_digest` is the SHA-256 of its manifest, `log_sequence` the number of the index of its
    log: a later rehearsal of the same set must not meet a lower one.
    """

    id: str
    taken_at: Moment | None
    bytes: int | None
    selection: str
    raw_bytes: int | None = None
    manifest_digest: str | None = None
    log_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What was rehearsed; `digest` identifies what the plan sets (`plan_digest`)."""

    name: str
    digest: str
    engine: str
    source: str
    recovery: str


@dataclass(frozen=True, slots=True)
class RunbookStep:
    """One thing to do by hand, without farside: what for, where, and the exact commands."""

    title: str
    commands: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The evidence of one rehearsal."""

    schema_version: int = SCHEMA_VERSION
    rehearsal_id: str
    plan: PlanSummary
    verdict: Verdict
    started_at: Moment
    ended_at: Moment | None
    declared_at: Moment | None = None
    usable_at: Moment | None = None
    recovered_until: Moment | None = None
    rta_seconds: float | None = None
    rto_seconds: float | None = None
    waited_seconds: float | None = None
    """What the rehearsal waited for its orchestrator between declaration and usable service; it
    is not in `rta_seconds`."""
    rpa_seconds: float | None = None
    rpo_seconds: float | None = None
    transactions_lost: int | None = None
    backup_set: BackupSetSummary | None = None
    stages: tuple[Stage, ...] = ()
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()
    uses: tuple[Use, ...] = ()
    topology: Topology = field(default_factory=Topology)
    not_verified: tuple[str, ...] = ()
    runbook: tuple[RunbookStep, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    trigger: str = "manual"
    overrides: dict[str, str] = field(default_factory=dict)
    """What the caller chose otherwise than the plan: name of the option -> value."""

    @property
    def rto_met(self) -> bool | None:
        """Whether recovery fitted its objective; None if it is not known or there is none."""
        return _met(self.rta_seconds, self.rto_seconds)

    @property
    def rpo_met(self) -> bool | None:
        """Whether the data lost fitted its objective; None if not known or there is none."""
        return _met(self.rpa_seconds, self.rpo_seconds)

    @property
    def objectives(self) -> dict[str, bool | None]:
        """Whether each objective was met, by the id of the finding that it is if it was not."""
        return {FindingId.RTO_MISSED: self.rto_met, FindingId.RPO_MISSED: self.rpo_met}

    def rta_breakdown(self) -> dict[str, float]:
        """Seconds of the RTA by stage; `declare` counts from the declaration on.

        Empty before the declaration. A rehearsal whose service never became usable counts to the
        end of each stage that began before teardown.
        """
        if self.declared_at is None:
            return {}
        found = {}
        for stage in self.stages:
            if (
                stage.name == StageName.TEARDOWN
                or stage.started_at is None
                or stage.ended_at is None
            ):
                continue
            began = max(stage.started_at, self.declared_at)
            ended = min(stage.ended_at, self.usable_at or stage.ended_at)
            if (seconds := (ended - began).total_seconds()) > 0:
                found[stage.name] = round(seconds, 3)
        return found

    def to_json(self) -> str:
        """The record as an indented JSON document."""
        return _adapter().dump_json(self, indent=2).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes, origin: str = "record") -> "Record":
        """Read a record; `origin` names it in errors.

        Raises:
            RecordTooNew: its schema is newer than this farside.
            RecordMalformed: it is no record.
        """
        _refuse_newer(text, origin)
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "document"
            raise RecordMalformed(
                f"{place}: {first['msg']}",
                operation=f"reading {origin}",
                hint="restore the file from the copy in the recovery domain's store",
            ) from error

    def save(self, folder: Path) -> Path:
        """Write FOLDER/REHEARSAL_ID.json; a reader never sees half of it. Returns its path.

        Raises:
            PermanentError: the folder cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.rehearsal_id):
            raise PermanentError(
                f"{self.rehearsal_id!r} cannot name a file", operation="saving the record"
            )
        path = folder / f"{self.rehearsal_id}.json"
        write_atomically(path, self.to_json().encode())
        return path


def load(path: Path) -> Record:
    """The record in the file at `path`. Raises as `Record.from_json`, or PermanentError."""
    try:
        return Record.from_json(path.read_bytes(), origin=str(path))
    except OSError as error:
        raise PermanentError(
            error.strerror or str(error),
            operation=f"reading {path}",
            hint="check the path and its permissions",
        ) from error


def load_all(folder: Path) -> list[Record]:
    """Every record (*.json) in `folder`, oldest first; none if there is no such folder.

    Raises:
        RecordTooNew, RecordMalformed: one of them cannot be read. Evidence is never skipped
            silently: move the file away to go on without it.
    """
    records = [load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda record: (record.started_at, record.rehearsal_id))


def json_schema() -> dict[str, Any]:
    """The JSON schema of the record, as written to a file."""
    return _adapter().json_schema(mode="serialization")


def _met(actual: float | None, objective: float | None) -> bool | None:
    return None if actual is None or objective is None else actual <= objective


def _refuse_newer(text: str | bytes, origin: str) -> None:
    try:
        document = wire.parsed(text)
    except wire.WireError as error:
        raise RecordMalformed(
            "not a JSON document",
            operation=f"reading {origin}",
            hint="restore the file from the copy in the recovery domain's store",
        ) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise RecordMalformed(
            "no schema_version: this is not a record of a rehearsal",
            operation=f"reading {origin}",
            hint="move the file out of the results folder",
        )
    if version > SCHEMA_VERSION:
        raise RecordTooNew(
            f"schema {version}; this farside reads up to {SCHEMA_VERSION}",
            operation=f"reading {origin}",
            hint="install a newer farside",
        )


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
