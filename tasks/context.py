"""What every stage of one rehearsal shares, and how a stage becomes a Prefect task."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment
from prefect.tasks import exponential_backoff

from blocks.domain import FailureDomain
from blocks.errors import TransientError
from blocks.evidence.findings import Findings
from blocks.hosts.host import Host
from blocks.plan.model import Plan
from tasks.lease import Lease
from tasks.reach import Reach
from tasks.reporting.clock import StageClock

Listing = Mapping[str, tuple[int, datetime]]
"""Key -> size and time of an object."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose for one rehearsal; None leaves the plan's own value."""

    select: str = "fresh"
    rate: int | None = None
    results: Path = Path("rehearsals")
    keep: timedelta | None = None
    """How long the restored service stays, behind its fence; None removes it."""
    rpo_given: bool = False
    """Whether the caller gave the RPO: then it is judged whatever set is chosen."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """What the caller chose otherwise than the plan, as it was given."""
    plan_digest: str | None = None
    """That of the plan before anything was chosen otherwise; None: nothing was."""


@dataclass(frozen=True, slots=True)
class SourceClock:
    """How many seconds the source's clock is ahead of the rehearsal's, and how exactly known."""

    ahead: float
    within: float

    @property
    def correction(self) -> float:
        """What a time of the source is to be reduced by: nothing that may be mere latency."""
        return self.ahead if abs(self.ahead) > self.within else 0.0


class Rehearsal:
    """One run of a plan. A plain class: Prefect looks into data classes that are parameters."""

    def __init__(self, rehearsal_id: str, plan: Plan, options: Options, clock: StageClock) -> None:
        self.id = rehearsal_id
        self.plan = plan
        self.options = options
        self.clock = clock
        self.plan_digest = options.plan_digest or plan.digest
        self.trigger = deployment.name or "manual"
        """The deployment that runs it. Asked now: Prefect's server may be gone by the end."""
        self.findings = Findings()
        domains = (plan.recovery, plan.source) if self.fresh else (plan.recovery,)
        self.lease = Lease(rehearsal_id, plan.name, domains)
        self.clock.guard = self.lease.require
        self.cut = False
        """Whether this rehearsal raised the fence, or tried to: then it lifts it."""
        self.cut_at: datetime | None = None
        """When the fence stood."""
        self.source_listing: Listing | None = None
        """What the source's store held, next to sets, when it was lost; None if unknown."""
        self.reach = Reach()
        """What of the source the recovery side could reach before the loss."""
        self.last_look: Any = None
        """What the engine saw of the source just before its loss; None where it did not look."""
        self.claimed = self.lease.reached
        """Hosts, as DOMAIN/HOST, that were reached: something of this rehearsal is there."""
        self.source_clock: SourceClock | None = None
        """How far the source's clock is from here; None if that could not be read."""
        self.log_ends: list[tuple[datetime, int]] = []
        """Moments before the loss, and where the source's log ended then."""
        self.started_at = clock.now()

    @property
    def source(self) -> FailureDomain:
        """The domain that is lost."""
        return self.plan.source

    @property
    def recovery(self) -> FailureDomain:
        """The domain that recovers."""
        return self.plan.recovery

    @property
    def fresh(self) -> bool:
        """Whether this rehearsal takes its own backup."""
        return self.options.select == "fresh"

    def work(self, host: Host) -> str:
        """This rehearsal's directory on `host`."""
        return f"{host.work_root}/{self.id}"

    def __str__(self) -> str:
        return f"{self.plan.name} {self.id}"


def new_id() -> str:
    """An id that sorts by time and names one rehearsal everywhere: r20260131-070500-1a2b3c."""
    return f"r{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def is_transient(task: Any, task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 (Prefect's own)
    """Retry only what trying again can help."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # noqa: BLE001 (whatever else a stage raised is not tried again)
        return False
    return False


def stage(name: str, *, retries: int = 0, limit: float | None = None) -> Callable[..., Any]:
    """Make a function a stage: a Prefect task named after it, retried if that can help.

    `limit` is its time limit in seconds. Results stay in memory: they may hold a secret.
    """
    return partial(
        task,
        name=name,
        task_run_name=f"{{rehearsal}}: {name}",
        retries=retries,
        retry_delay_seconds=exponential_backoff(backoff_factor=2) if retries else None,
        retry_jitter_factor=0.5 if retries else None,
        retry_condition_fn=is_transient if retries else None,
        timeout_seconds=limit,
        cache_policy=NO_CACHE,
        persist_result=False,
    )()
