"""The record: the evidence of one rehearsal, one JSON document.

Times are UTC, ISO 8601 with Z. A value that is not known is null, never zero. A newer farside may
add fields; a change that older readers would misread gets another `schema_version`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from blocks.artifact import wire
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.files import write_atomically
from blocks.evidence.findings import Finding
from blocks.evidence.moments import Moment
from blocks.evidence.record.parts import (
    BackupSetSummary,
    Check,
    CheckStatus,
    Counterpart,
    Difference,
    Node,
    PlanSummary,
    RunbookStep,
    SourceNode,
    Stage,
    StageState,
    Step,
    Topology,
    Verdict,
)
from blocks.evidence.schema import DESCRIBED
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Use

__all__ = [
    "SCHEMA_VERSION",
    "STAGES",
    "BackupSetSummary",
    "Check",
    "CheckStatus",
    "Counterpart",
    "Difference",
    "Node",
    "PlanSummary",
    "Record",
    "RecordMalformed",
    "RecordTooNew",
    "RunbookStep",
    "SourceNode",
    "Stage",
    "StageState",
    "Step",
    "Topology",
    "Verdict",
    "json_schema",
    "load",
    "load_all",
]

SCHEMA_VERSION = 1
"""The version of the record that this farside writes, and the newest that it reads."""
STAGES = tuple(stage.value for stage in StageName)
"""The stages of a rehearsal, in order, as a record names them."""


class RecordTooNew(PermanentError):
    """The record was written by a newer farside, in a schema that this one does not read."""


class RecordMalformed(PermanentError):
    """The document is not a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The evidence of one rehearsal."""

    __pydantic_config__ = DESCRIBED

    schema_version: int = SCHEMA_VERSION
    """A newer version is refused; unknown fields are not."""
    rehearsal_id: str
    """Names the run everywhere: files, markers on hosts, objects."""
    plan: PlanSummary
    """What was rehearsed."""
    verdict: Verdict
    """What the rehearsal showed."""
    started_at: Moment
    """When it began, with its steady state."""
    ended_at: Moment | None
    """When it ended, with its teardown."""
    declared_at: Moment | None = None
    """When the source was lost."""
    usable_at: Moment | None = None
    """When the service was verified."""
    recovered_until: Moment | None = None
    """The time of the newest transaction in the restored data."""
    rta_seconds: float | None = None
    """`usable_at` less `declared_at`, without `waited_seconds`."""
    rto_seconds: float | None = None
    """The plan's objective for it."""
    waited_seconds: float | None = None
    """What the rehearsal waited for its orchestrator between declaration and usable service; it
    is not in `rta_seconds`."""
    rpa_seconds: float | None = None
    """`declared_at` less `recovered_until`, by one clock."""
    rpo_seconds: float | None = None
    """The plan's objective for it; null for an old set, of which it is not judged."""
    transactions_lost: int | None = None
    """Heartbeats that were acknowledged before the loss and are not in the restored data."""
    backup_set: BackupSetSummary | None = None
    """The set that was restored."""
    stages: tuple[Stage, ...] = ()
    """Every stage, in order."""
    checks: tuple[Check, ...] = ()
    """What was asked of the restored service."""
    findings: tuple[Finding, ...] = ()
    """Assumptions that broke, or would have; one cause (id and subject) is one finding."""
    uses: tuple[Use, ...] = ()
    """What the rehearsal depended on, and whose it is."""
    topology: Topology = field(default_factory=Topology)
    """The nodes that were expected, and those that there were."""
    not_verified: tuple[str, ...] = ()
    """What was not looked at, and why."""
    runbook: tuple[RunbookStep, ...] = ()
    """How to restore this very set by hand, with `curl`, `age`, `zstd`, `tar` and the database's
    own programs."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of farside, of Python and of the libraries."""
    trigger: str = "manual"
    """`manual`, or the name of the deployment that ran it."""
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
        return _ADAPTER.dump_json(self, indent=2).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes, origin: str = "record") -> "Record":
        """Read a record; `origin` names it in errors.

        Raises:
            RecordTooNew: its schema is newer than this farside.
            RecordMalformed: it is no record.
        """
        _refuse_newer(text, origin)
        try:
            return _ADAPTER.validate_json(text)
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
    return _ADAPTER.json_schema(mode="serialization")


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


# Now, by one thread: for the descriptions, sources are parsed, and Python 3.11 cannot do that in
# several threads at once ("AST constructor recursion depth mismatch").
_ADAPTER = TypeAdapter(Record)
