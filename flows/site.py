"""From a plan's name to a plan that can be rehearsed; a lab plan brings its lab along."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.errors import PermanentError
from blocks.plan import Plan, PlanError, load_plan
from deployments import lab


def is_lab(name: str) -> bool:
    """Whether `name` is one of the lab's plans: those go by their bare name."""
    return name in lab.plans()


@contextmanager
def opened(name: str, *, scale: int | None = None, keep: bool = False) -> Iterator[Plan]:
    """The plan called `name`: of the lab, in a file, or saved as a Prefect block.

    The lab is brought up where it is down, and then taken down again at the end, unless the
    restored service in it is to be kept. Raises PlanError.
    """
    if not is_lab(name):
        plan = load_plan(Path(name)) if is_path(name) else saved(name)
        try:
            yield plan
        finally:
            close(plan)
        return
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


def saved(name: str) -> Plan:
    """A plan saved as a Prefect block. Raises PlanError if there is none."""
    try:
        plan = Plan.load(name)
    except ValueError:
        known = ", ".join(lab.plans())
        raise PlanError(
            f"no plan {name!r}: neither a file, nor one of the lab's ({known}), nor a saved block",
            hint="give the path of a plan file",
        ) from None
    if not isinstance(plan, Plan):
        raise PermanentError("Prefect answered with a coroutine", operation="loading a plan block")
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
