"""What a record says, in words: the same on the terminal and on a page."""

import pandas as pd

from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding
from blocks.evidence.record import Record, StageState, Verdict
from tasks.frames import Standing
from tasks.reporting.units import duration

Histories = dict[tuple[str, str], str]
"""How long each cause has been known, in words, by its id and subject."""


def verdict(record: Record) -> str:
    """The verdict, and what spoils it; an objective whose missing is accepted does not."""
    accepted = {item.id for item in record.findings if item.accepted}
    words = {True: "", False: "MISSED", None: "UNKNOWN"}
    set_for: dict[str, float | None] = {
        FindingId.RTO_MISSED: record.rto_seconds,
        FindingId.RPO_MISSED: record.rpo_seconds,
    }
    missed = [
        f"{objective.removesuffix('-missed').upper()} {words[met]}"
        for objective, met in record.objectives.items()
        if objective not in accepted
        and set_for[objective] is not None
        and (met is False or (met is None and record.verdict is Verdict.VERIFIED))
    ]
    return ", ".join([record.verdict.value.upper(), *missed])


def errors(record: Record) -> list[tuple[str, str]]:
    """Stage and cause of everything that did not complete; cancelled ones and retries too."""
    return [
        (f"{stage.name} {stage.state.value}:", stage.error)
        for stage in record.stages
        if stage.error and stage.state in (StageState.FAILED, StageState.CANCELLED)
    ]


def nodes_shown(record: Record) -> str:
    """What of the source went where; nothing where one node took the place of one."""
    topology, west = record.topology, record.plan.recovery
    parts = [
        f"{pair.source or 'new'} -> {f'{west}/{pair.recovery}' if pair.recovery else 'none'}"
        for pair in topology.mapping or ()
    ] or [f"{west}/{node.host} ({node.role})" for node in topology.observed or ()]
    return ", ".join(parts) if len(parts) > 1 else ""


def seconds(seconds: float | None) -> str:
    """A duration that may be unknown."""
    return "unknown" if seconds is None else duration(seconds)


def against(met: bool | None, objective: float | None, name: str) -> str:
    """How an actual compares with its objective, in seconds, called `name`."""
    if objective is None:
        return "no objective"
    word = {True: "within", False: "misses", None: "against"}[met]
    exact = f"{objective:.0f} s" if objective < 120 and objective % 1 == 0 else duration(objective)
    return f"{word} {name} {exact}"


def lost(record: Record) -> str:
    """How many acknowledged transactions were lost."""
    if record.transactions_lost is None:
        return "transactions lost: unknown"
    plural = "" if record.transactions_lost == 1 else "s"
    return f"{record.transactions_lost} acknowledged transaction{plural} lost"


def by_acceptance(record: Record) -> tuple[list[Finding], list[Finding]]:
    """The findings that the plan accepts, and the others, the worst first."""
    found = sorted(record.findings, key=lambda item: item.severity.rank)
    accepted = [item for item in found if item.accepted is not None]
    return accepted, [item for item in found if item.accepted is None]


def histories_of(record: Record, lifecycle: pd.DataFrame | None) -> Histories:
    """What `lifecycle` (see `tasks.frames`) tells of the record's plan; nothing without it."""
    if lifecycle is None:
        return {}
    of_plan = lifecycle[lifecycle["plan"] == record.plan.name]
    return {
        (row["id"], row["subject"]): row["state"]
        if row["state"] == Standing.NEW
        else f"{row['state']}, in {row['rehearsals']} rehearsals since {row['first_seen']:%Y-%m-%d}"
        for row in of_plan.to_dict("records")
    }
