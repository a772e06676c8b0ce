"""From a plan's name to a plan that can be rehearsed; a lab plan brings its lab along."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.errors import FarsideError, PermanentError
from blocks.hosts.host import Host
from blocks.plan.loading import PlanError, load_plan, load_saved
from blocks.plan.model import Plan
from blocks.remote.jobs import sweep_host
from blocks.settings import check, trusted_plans
from blocks.workers import Workers
from deployments import lab
from tasks.lease import has_ended


def is_lab(name: str) -> bool:
    """Whether `name` is one of the lab's plans: those go by their bare name."""
    return name in lab.plans()


@contextmanager
def opened(
    name: str, *, scale: int | None = None, keep: bool = False, regardless: bool = False
) -> Iterator[Plan]:
    """The plan called `name`: of the lab, in a file, or saved as a Prefect block.

    The lab is brought up where it is down, and then taken down again at the end, unless the
    restored service in it is to be kept. `regardless` of a rehearsal that runs in it, or as
    `check_free`. Raises PlanError, and BadSetting: the flow runs of a worker begin here, too.
    """
    check()
    if not is_lab(name):
        plan = load_plan(Path(name), local_files=not regardless) if is_path(name) else saved(name)
        try:
            yield plan
        finally:
            close(plan)
        return
    if not regardless:
        check_free()
    brought_up = lab.up(scale=scale, parts=lab.parts_of(name)).fresh
    try:
        plan = load_plan(lab.plan_path(None, name))
        try:
            yield plan
        finally:
            close(plan)
    finally:
        if brought_up and not keep:
            lab.down()


def check_free() -> None:
    """Raise PermanentError if a rehearsal that still runs has lost the lab's source.

    To bring the lab up would revive it; to look at it would be a call to it, which that rehearsal
    takes for one of what it restored.
    """
    if ids := running_without_source():
        raise PermanentError(
            f"rehearsal {', '.join(ids)} runs in the lab now, and has lost its source",
            operation="lab up",
            hint="wait for its end; what must be gone at once is removed by "
            "`python -m flows.sweep --all`",
        )


def running_without_source() -> tuple[str, ...]:
    """The rehearsals that run, if the lab's source is lost.

    Each has its claim on every recovery host: one that does not answer is passed over.
    """
    if not lab.is_lost():
        return ()
    paths = (lab.plan_path(None, name) for name in lab.plans())
    plans = [load_plan(path) for path in paths if path.exists()]
    try:
        hosts = {host.name: host for plan in plans for host in plan.recovery.hosts}
        with Workers(8, "claims") as pool:
            found = pool.map(_claims, hosts.values())
            return tuple(sorted({rehearsal_id for ids in found for rehearsal_id in ids}))
    finally:
        for plan in plans:
            close(plan)


def _claims(host: Host) -> set[str]:
    """Rehearsals that have something on a host, and still run."""
    try:
        there = sweep_host(host, None, remove=False).found
        return {
            left.rehearsal_id
            for left in there
            if left.state == "alive" and not has_ended(left.owner)
        }
    except FarsideError:
        return set()


def saved(name: str) -> Plan:
    """A plan saved as a Prefect block. Raises PlanError if there is none, or it is not valid."""
    plan = load_saved(name)
    if plan is None:
        known = ", ".join(lab.plans())
        raise PlanError(
            f"no plan {name!r}: neither a file, nor one of the lab's ({known}), nor a saved block",
            hint="give the path of a plan file",
        )
    trusted = trusted_plans()
    if trusted is not None and plan.digest not in trusted:
        raise PlanError(
            f"the saved plan {name!r} has digest {plan.digest}, which FARSIDE_TRUSTED_PLANS does"
            " not list: whoever reaches Prefect's API can change it, and its commands run here",
            hint="compare the block with the plan's file, then list its digest for this worker",
        )
    return plan


def close(plan: Plan) -> None:
    """Close every connection that the plan's blocks hold."""
    plan.source.close()
    plan.recovery.close()


def is_path(name: str) -> bool:
    """Whether `name` is meant as the path of a plan file; the lab's names never are."""
    return not is_lab(name) and _looks_like_path(name)


def _looks_like_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml")) or Path(name).exists()
