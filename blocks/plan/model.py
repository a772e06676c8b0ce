"""Plan: what is rehearsed. A YAML file, validated; every mistake is reported with its line."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from blocks.block import StrictBlock
from blocks.domain import FailureDomain
from blocks.engines.facts import Facts
from blocks.engines.registry import AnyEngine
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

    rto: Duration = Field(
        description="Recovery time objective: how long recovery may take, from the declaration to "
        "a verified service, as in 15m."
    )
    rpo: Duration = Field(
        description="Recovery point objective: how much recent data may be lost, from the newest "
        "restored transaction to the declaration, as in 60s."
    )


class BackupSelection(_Part):
    """Which backup set is rehearsed."""

    select: Annotated[str, BeforeValidator(parse_selection)] = Field(
        default="fresh",
        description="Which set is rehearsed: fresh takes a new backup first; latest, oldest, "
        "random or the id of a set takes one that the recovery store has already.",
    )
    rate: Rate = Field(
        default=READ_RATE,
        description="How fast a fresh backup may read at the source, if the engine can limit that, "
        "as in 50MB/s or 400Mbit/s (a plain number is bytes per second). Without it, 200MB/s.",
    )
    checkpoint: Literal["spread", "fast"] = Field(
        default="spread",
        description="PostgreSQL: how a fresh backup begins. spread waits for the checkpoint, "
        "which may take minutes; fast has it written at once, which burdens the source's disks.",
    )
    spool: Size = Field(
        default=10 * 10**9,
        description="PostgreSQL: how much log may wait on the backup's host until the source's "
        "store has taken it, as in 10GB (the default). More ends the rehearsal.",
    )
    retained: Size = Field(
        default=10 * 10**9,
        description="PostgreSQL: how much log the source may keep on its disks for the "
        "rehearsal's receiver, if that falls behind, as in 10GB (the default). More ends the "
        "rehearsal.",
    )

    @property
    def load(self) -> Load:
        """What a capture may cost the source."""
        return Load(self.rate, self.checkpoint == "fast", self.spool, self.retained)


class Keys(_Part):
    """What seals and signs the backup sets. Private keys are named here, never held."""

    recipients: list[Recipient] = Field(
        min_length=1,
        description="The age recipients (age1...) that every set is sealed to: at least that of "
        "the identity below. Each can open every set alone.",
    )
    identity: str = Field(
        description="Name, in the recovery domain's vault, of the age identity that opens the sets."
    )
    signing_key: str | None = Field(
        default=None,
        description="Name, in the source domain's vault, of the Ed25519 key that signs manifests. "
        "A fresh backup needs it; to rehearse a set that is there, it may be left out.",
    )
    signer: Signer = Field(
        description="The public half of that key (ed25519:...), pinned: a set whose manifest is "
        "not signed with it is refused."
    )
    former_signers: list[Signer] = Field(
        default_factory=list,
        description="Public keys of before a change of the signing key: sets signed with them "
        "stay valid. Without it, none.",
    )
    record_key: str | None = Field(
        default=None,
        description="Name, in the recovery domain's vault, of the Ed25519 key that signs records. "
        "Without it, records are not signed.",
    )
    record_signer: Signer | None = Field(
        default=None,
        description="The public half of the record key, pinned: earlier records that are not "
        "signed with it do not count as history. Without it, all earlier records count.",
    )


class Transfer(_Part):
    """Who carries a set across the gap, and how fast."""

    host: str = Field(
        description="Name of the recovery host that copies sets from the source's store into the "
        "recovery domain's."
    )
    rate: Rate | None = Field(
        default=None,
        description="How fast it may copy, as in 400Mbit/s or 50MB/s (a plain number is bytes per "
        "second). Without it, as fast as the link is.",
    )


class Heartbeat(_Part):
    """A table that gets a row for each tick, and the list of ticks that were acknowledged.

    The ledger is a text file outside the database, readable by the orchestrator: a line is the
    row's id, a tab, and the UTC time at which its commit was acknowledged.
    """

    database: str = Field(description="Database that holds the heartbeat table.")
    table: str = Field(
        description="Table that gets a row for each tick, with the columns id (1, 2, 3, ...) and "
        "at (the time)."
    )
    ledger: Path = Field(
        description="File on the orchestrator, outside both domains, with a line for each "
        "acknowledged tick: its id, a tab, and the time (UTC) of the acknowledgement."
    )


class AppSecret(_Part):
    """A secret without which the application cannot read its own rows, and a row to try it on."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="What the record calls this check: lower case, digits and dashes.",
    )
    secret: str = Field(description="Name of the secret in the recovery domain's vault.")
    database: str = Field(description="Database that is asked for an encrypted value.")
    sql: str = Field(description="Query that yields one value which was encrypted with the secret.")
    open_argv: list[str] = Field(
        min_length=1,
        description="The application's own command that decrypts the value, run on the restored "
        "service's host: it reads the secret (a line) and the value from standard input, and ends "
        "with exit code 0 if it could open it.",
    )


class Production(_Part):
    """The real size, where the rehearsed database is smaller."""

    size: Size = Field(
        description="Size of the production database, as in 2TB (a plain number is bytes): times "
        "are projected to it, and compared with the RTO."
    )
    link: Rate | None = Field(
        default=None,
        description="Rate of the real link between the domains, as in 1Gbit/s: says how long a "
        "full copy takes. Without it, that is not told.",
    )


class SqlCheck(_Part):
    """A question to the restored data, and the only answer that passes."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="What the record calls this check: lower case, digits and dashes.",
    )
    database: str = Field(description="Database that is asked.")
    sql: str = Field(description="Query that yields one value, in the engine's own language.")
    expected: str = Field(
        description="The only value that passes, as text and as the database's client prints it: "
        "t for true in PostgreSQL, for one."
    )


class AcceptedRisk(_Part):
    """A finding that the plan's owner lives with, until a day; it stays in the record."""

    finding: Annotated[str, BeforeValidator(parse_finding)] = Field(
        description="Id of the finding in farside's catalogue, as in address-hard-coded."
    )
    subject: str | None = Field(
        default=None,
        description="What the finding is about, exactly as a record's subject has it. Without it, "
        "every subject; a finding that shows a broken isolation needs it.",
    )
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="Why it is accepted, and what is going to be done about it."
    )
    until: Annotated[date, BeforeValidator(parse_day)] = Field(
        description="The last day (UTC) on which it is accepted, as in 2027-03-31. From the next "
        "day on it counts again."
    )


class Shape(_Part):
    """How the nodes of the source and those of the recovery belong together."""

    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Name of a node of the source -> host of the recovery node that takes its "
        "place. A node that is not named has no counterpart. Without any, nodes are matched by "
        "role, then by name, then in order.",
    )


class Plan(StrictBlock):
    """What is rehearsed: engine, source, recovery, objectives, which backup, checks."""

    _block_type_name = "farside plan"
    _block_type_slug = "farside-plan"
    _description = "A disaster recovery plan that farside can rehearse."

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=60,
        description="What the plan is called: lower case, digits and dashes. Its backup sets are "
        "stored under it, and its records bear it: another name is another history.",
    )
    description: str = Field(default="", description="What it is about, in a sentence, for people.")
    source: FailureDomain = Field(description="The failure domain that is lost.")
    recovery: FailureDomain = Field(
        description="The failure domain that recovers. It shares nothing with the source."
    )
    engine: AnyEngine = Field(
        description="The database: how it is backed up, and where and how it is restored. kind "
        "chooses among the engines."
    )
    keys: Keys = Field(
        description="What seals and signs backup sets and records. Private keys are named, never "
        "held: they are in the domains' vaults."
    )
    objectives: Objectives = Field(
        description="How long recovery may take, and how much recent data may be lost."
    )
    backup: BackupSelection = Field(
        default=BackupSelection(),
        description="Which backup set is rehearsed, and what a fresh one may cost the source. "
        "Without it, a fresh one.",
    )
    retention: Retention | None = Field(
        default=None,
        description="Which of the plan's sets a sweep with --expire keeps in each store. Without "
        "it, all of them.",
    )
    transfer: Transfer = Field(description="Which host carries a set across, and how fast it may.")
    fence: AnyFence = Field(
        description="What makes the source unreachable from the recovery side at the declaration, "
        "and shows what calls it afterwards."
    )
    heartbeat: Heartbeat | None = Field(
        default=None,
        description="A table to which a row is committed for each tick, with a ledger of those "
        "acknowledged: what was lost is then counted in transactions. Without it, that is not "
        "known.",
    )
    checks: list[SqlCheck] = Field(
        default_factory=list,
        description="The plan's own questions to the restored data, each with its only good "
        "answer. Without any, only the engine's checks are made.",
    )
    secrets: list[AppSecret] = Field(
        default_factory=list,
        description="What the application's own rows are encrypted with, and a row to try each "
        "secret on. Without any, that is not verified.",
    )
    names: list[str] = Field(
        default_factory=list,
        description="DNS names by which clients reach the service. They are resolved on the "
        "recovery hosts: none may lead to the source. Without any, that is not verified.",
    )
    files: list[str] = Field(
        default_factory=list,
        description="Files on the recovery hosts that are searched for the source's addresses, "
        "names and paths, besides the usual ones, as in /etc/shop/*.conf.",
    )
    search_rows: bool = Field(
        default=False,
        description="Whether the rows of all restored tables are searched for the source's "
        "addresses, names and paths, too. Without it, only definitions and settings are.",
    )
    search_rows_limit: Duration = Field(
        default=timedelta(minutes=10),
        json_schema_extra={"default": "10m"},
        description="How long the search of rows may take, as in 10m (the default). What it has "
        "not reached by then is in the record as not verified.",
    )
    topology: Shape = Field(
        default=Shape(),
        description="Which recovery node takes the place of which of the source's. Without it, "
        "that is derived by role and name.",
    )
    production: Production | None = Field(
        default=None,
        description="The real size, where the rehearsed database is smaller: the record says "
        "whether recovery fits the RTO at that size. Without it, nothing is projected.",
    )
    accepted: list[AcceptedRisk] = Field(
        default_factory=list,
        description="Findings that the plan's owner accepts for now. They stay in the record, but "
        "count neither for the verdict nor for the exit code.",
    )

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
