"""Plan: what is rehearsed. A YAML file, validated; every mistake is reported with its line."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
    model_validator,
)

from blocks.block import StrictBlock
from blocks.domain import FailureDomain
from blocks.engines.engine import Engine
from blocks.engines.facts import Facts
from blocks.engines.registry import engine_of
from blocks.evidence.record import Topology
from blocks.evidence.topology import counterparts
from blocks.fences import AnyFence
from blocks.fences.fence import Gap
from blocks.plan import checks as plan_checks
from blocks.plan.digest import digest_of
from blocks.plan.values import (
    Duration,
    Rate,
    Recipient,
    Signer,
    Size,
    parse_day,
    parse_finding,
    parse_selection,
)
from blocks.repositories.farside.binding import Binding
from blocks.repositories.farside.retention import Retention
from blocks.repositories.farside.writer import READ_RATE, Load


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Objectives(_Part):
    """How long recovery may take, and how much recent data may be lost."""

    rto: Duration = Field(description="Recovery time objective, e.g. 15m")
    rpo: Duration = Field(description="Recovery point objective, e.g. 60s")


class BackupSelection(_Part):
    """Which backup set is rehearsed."""

    select: Annotated[str, BeforeValidator(parse_selection)] = Field(
        default="fresh",
        description="fresh, latest, oldest, random, or the id of a set",
    )
    rate: Rate = Field(
        default=READ_RATE,
        description="Limit of reading a fresh backup at the source, of an engine that can limit it,"
        " e.g. 50MB/s; 200MB/s unless given",
    )
    checkpoint: Literal["spread", "fast"] = Field(
        default="spread",
        description="Whether a fresh backup waits for a spread checkpoint, or has one made at once",
    )
    spool: Size = Field(
        default=10 * 10**9,
        description="Log that may wait on the backup's host for the source's store; more ends the"
        " rehearsal",
    )
    retained: Size = Field(
        default=10 * 10**9,
        description="Log that the source may keep for a receiver that is behind; more ends the"
        " rehearsal",
    )

    @property
    def load(self) -> Load:
        """What a capture may cost the source."""
        return Load(self.rate, self.checkpoint == "fast", self.spool, self.retained)


class Keys(_Part):
    """What seals and signs the backup sets. Private keys are named here, never held."""

    recipients: list[Recipient] = Field(
        min_length=1, description="age recipients that every set is sealed to"
    )
    identity: str = Field(description="Name of the age identity in the recovery domain's vault")
    signing_key: str | None = Field(
        default=None, description="Name of the Ed25519 signing key in the source domain's vault"
    )
    signer: Signer = Field(description="Pinned public key of the manifests' signer")
    former_signers: list[Signer] = Field(
        default_factory=list,
        description="Public keys that older sets are signed with, from before a change of key",
    )
    record_key: str | None = Field(
        default=None, description="Name of the key in the recovery vault that signs records"
    )
    record_signer: Signer | None = Field(
        default=None,
        description="Pinned public key of that key: earlier records that it did not sign do not "
        "count",
    )


class Transfer(_Part):
    """Who carries a set across the gap, and how fast."""

    host: str = Field(description="A recovery host that pulls from the source's store")
    rate: Rate | None = Field(default=None, description="Limit of the link, e.g. 50Mbit/s")


class Heartbeat(_Part):
    """A table that gets a row for each tick, and the list of ticks that were acknowledged.

    The ledger is a text file outside the database, readable by the orchestrator: a line is the
    row's id, a tab, and the UTC time at which its commit was acknowledged.
    """

    database: str
    table: str = Field(description="Table with the columns id (1, 2, 3, ...) and at")
    ledger: Path


class AppSecret(_Part):
    """A secret without which the application cannot read its own rows, and a row to try it on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    secret: str = Field(description="Its name in the recovery domain's vault")
    database: str
    sql: str = Field(description="A query that yields one value which the secret opens")
    open_argv: list[str] = Field(
        min_length=1,
        description="The application's own command for it, on the restored service's host: reads "
        "the secret (a line) and the value from standard input, ends with 0 if it could open it",
    )


class Production(_Part):
    """The real size, where the rehearsed database is smaller."""

    size: Size = Field(description="Bytes of the production database, e.g. 2TB")
    link: Rate | None = Field(default=None, description="The real link's rate, e.g. 1Gbit/s")


class SqlCheck(_Part):
    """A question to the restored data, and the only answer that passes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    database: str
    sql: str = Field(description="A query that yields one value")
    expected: str = Field(description="That value as text")


class AcceptedRisk(_Part):
    """A finding that the plan's owner lives with, until a day; it stays in the record."""

    finding: Annotated[str, BeforeValidator(parse_finding)] = Field(
        description="Id of the finding, e.g. address-hard-coded"
    )
    subject: str | None = Field(
        default=None, description="What it is about, as the record says; without it, anything"
    )
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="Why, and what is going to be done"
    )
    until: Annotated[date, BeforeValidator(parse_day)] = Field(
        description="The last day (UTC) on which it is accepted"
    )


class Shape(_Part):
    """How the nodes of the source and those of the recovery belong together."""

    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Node of the source -> host of the recovery node that takes its place; what is "
        "not named has no counterpart. Without it, it is derived by role and name",
    )


class Plan(StrictBlock):
    """What is rehearsed: engine, source, recovery, objectives, which backup, checks."""

    _block_type_name = "farside plan"
    _block_type_slug = "farside-plan"
    _description = "A disaster recovery plan that farside can rehearse."

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    description: str = ""
    source: FailureDomain = Field(description="The failure domain that is lost")
    recovery: FailureDomain = Field(description="The failure domain that recovers")
    engine: Annotated[SerializeAsAny[Engine], BeforeValidator(engine_of)]
    keys: Keys
    objectives: Objectives
    backup: BackupSelection = BackupSelection()
    retention: Retention | None = Field(
        default=None, description="Which of its sets a sweep with --expire keeps; without it, all"
    )
    transfer: Transfer
    fence: AnyFence = Field(description="What makes the source unreachable")
    heartbeat: Heartbeat | None = None
    checks: list[SqlCheck] = Field(default_factory=list)
    secrets: list[AppSecret] = Field(default_factory=list)
    names: list[str] = Field(
        default_factory=list,
        description="Names by which the service is reached, to be resolved on the recovery hosts",
    )
    files: list[str] = Field(
        default_factory=list,
        description="Files on the recovery hosts to search for the source's addresses, besides the "
        "usual ones, as in /etc/shop/*.conf",
    )
    search_rows: bool = Field(
        default=False,
        description="Whether the rows of all restored tables are searched for the source's "
        "addresses, names and paths, too, and not only definitions",
    )
    search_rows_limit: Duration = Field(
        default=timedelta(minutes=10), description="How long that may take, e.g. 10m"
    )
    topology: Shape = Shape()
    production: Production | None = None
    accepted: list[AcceptedRisk] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        if self.source.name == self.recovery.name:
            raise ValueError("source and recovery must be two different failure domains")
        self.source.tell_apart(self.recovery)
        for network in self.source.networks:
            for other in self.recovery.networks:
                if network.version == other.version and network.overlaps(other):
                    raise ValueError(f"networks of source and recovery overlap: {network}, {other}")
        known = {host.name for host in self.recovery.hosts}
        if self.transfer.host not in known:
            raise ValueError(
                f"transfer.host: {self.transfer.host!r} is not a host of the recovery domain"
                f" ({', '.join(sorted(known))})"
            )
        self.engine.check_hosts(self.source, self.recovery)
        nodes = [node.host for node in self.engine.predicted_nodes]
        given = list(self.topology.mapping.values())
        for name in given:
            if name not in nodes:
                raise ValueError(
                    f"topology.mapping: {name!r} is not a host of a node that the engine's target"
                    f" makes ({', '.join(nodes)})"
                )
            if given.count(name) > 1:
                raise ValueError(f"topology.mapping: {name!r} takes the place of several nodes")
        plan_checks.refuse("Plan", plan_checks.mistakes(self))
        return self

    @property
    def binding(self) -> Binding:
        """What a backup set must say of itself to be one of this plan's."""
        signers = (self.keys.signer, *self.keys.former_signers)
        return Binding(self.name, self.engine.label, self.source.name, signers)

    def gap(self, rehearsal_id: str | None = None) -> Gap:
        """What the fence stands between, for one rehearsal, or for any."""
        endpoints = self.source.endpoints(self.engine.source_endpoints)
        return Gap(self.source, self.recovery, tuple(endpoints), rehearsal_id)

    def topology_from(self, facts: Facts) -> Topology:
        """What the source of these facts consisted of, and what of it goes where."""
        nodes = self.engine.predicted_nodes
        source = facts.source_nodes()
        if source is None:
            return Topology(nodes)
        known = {node.name for node in source}
        given = {name: host for name, host in self.topology.mapping.items() if name in known}
        return Topology(nodes, source=source, mapping=counterparts(source, nodes, given))

    def strangers(self, topology: Topology) -> list[str]:
        """Nodes that the plan maps, and of which the source did not consist: down, or misspelt."""
        known = {node.name for node in topology.source or ()}
        return [name for name in self.topology.mapping if name not in known]

    @property
    def digest(self) -> str:
        """What a record names the plan by that it rehearsed (see `blocks.plan.digest`)."""
        return digest_of(self)
