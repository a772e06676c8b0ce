"""What every stage of one rehearsal shares, and how a stage becomes a Prefect task."""

import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment
from prefect.tasks import exponential_backoff

from blocks.domain import FailureDomain
from blocks.errors import FarsideError, TransientError
from blocks.evidence.findings import Findings
from blocks.helper import work_folder
from blocks.hosts import FileMissing, Host
from blocks.plan import Plan
from tasks.clock import StageClock

OWNER_FILE = "owner.json"


Listing = Mapping[str, tuple[int, datetime]]
"""Key -> size and time of an object."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose for one rehearsal; None leaves the plan's own value."""

    select: str = "fresh"
    rate: int | None = None
    results: Path = Path("rehearsals")
    keep: bool = False


class Rehearsal:
    """One run of a plan. A plain class: Prefect looks into data classes that are parameters."""

    def __init__(self, id: str, plan: Plan, options: Options, clock: StageClock) -> None:
        self.id = id
        self.plan = plan
        self.options = options
        self.clock = clock
        self.trigger = deployment.name or "manual"
        """The deployment that runs it. Asked now: Prefect's server may be gone by the end."""
        self.findings = Findings()
        self.cut = False
        """Whether this rehearsal raised the fence, or tried to: then it lifts it."""
        self.source_listing: Listing | None = None
        """What the source's store held, beside sets, when it was lost; None where nobody knows."""
        self.claimed: set[str] = set()
        """Hosts, as DOMAIN/HOST, that were reached: something of this rehearsal is there."""
        self.started_at = datetime.now(UTC)

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
        return f"{host.work_dir}/{self.id}"

    def __str__(self) -> str:
        return f"{self.plan.name} {self.id}"


def new_id() -> str:
    """An id that sorts by time and names one rehearsal everywhere: r20260131-070500-1a2b3c."""
    return f"r{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def owner(plan: str) -> dict[str, Any]:
    """Who runs a rehearsal of which plan: enough to tell later whether that process still lives."""
    pid = os.getpid()
    return {
        "plan": plan,
        "machine": platform.node(),
        "pid": pid,
        "start": process_start(pid),
        "at": time.time(),
    }


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def is_transient(task: Any, task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 (Prefect's own)
    """Retry only what trying again can help."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:
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


def claim(rehearsal: Rehearsal) -> None:
    """Leave word on every recovery host who runs this rehearsal, so that no sweep ends it."""
    note = json.dumps(owner(rehearsal.plan.name)).encode()
    for host in rehearsal.recovery.hosts:
        with suppress(FarsideError):  # a host that cannot be reached is preflight's finding
            folder = work_folder(host, rehearsal.id)
            rehearsal.claimed.add(f"{host.domain}/{host.name}")
            host.put(note, f"{folder}/{OWNER_FILE}")


def running_plan(host: Host, id: str) -> str | None:
    """The plan of a rehearsal that left its claim on `host`, if it may still run; else None.

    On another machine nobody can tell: there it counts as running for a day. Raises FarsideError
    if the host does not answer.
    """
    try:
        told = json.loads(host.get(f"{host.work_dir}/{id}/{OWNER_FILE}"))
        if told["machine"] != platform.node():
            running = time.time() - float(told["at"]) < 24 * 3600
        else:
            start = process_start(int(told["pid"]))
            running = start is not None and start == told["start"]
        return str(told["plan"]) if running else None
    except (FileMissing, ValueError, KeyError, TypeError):
        return None
