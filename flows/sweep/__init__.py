"""Remove what a killed rehearsal left, and backup sets that retention does not keep.

`python -m flows.sweep [PLAN] [--expire]`, or a scheduled flow.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from blocks.errors import FarsideError
from blocks.plan.loading import PlanError
from blocks.plan.model import Plan
from blocks.repositories.farside.retention import Retention
from blocks.settings import trusted_plans
from deployments import lab
from flows.site import is_lab, is_path, opened, running_without_source
from tasks.expiry import expire_sets
from tasks.sweep import Swept, sweep_plan


@flow(name="sweep", persist_result=False)
def sweep(
    plan: Annotated[
        str, Field(description="Name of a lab plan, path of a plan file, or a saved plan block")
    ] = "postgres",
    everything: Annotated[
        bool, Field(description="Also what a rehearsal that still runs has made, or has kept")
    ] = False,
    results: Annotated[str, Field(description="Folder for the records")] = "rehearsals",
    expire: Annotated[
        bool, Field(description="Also backup sets that the plan's retention does not keep")
    ] = False,
) -> None:
    """Remove what dead rehearsals of a plan left on hosts, in stores and in the source."""
    swept = swept_of(plan, everything, Path(results), expire=expire)
    if swept.remaining:
        raise FarsideError(f"remaining: {'; '.join(swept.remaining)}", operation="sweep")


def swept_of(name: str, everything: bool, results: Path, *, expire: bool) -> Swept:
    """Sweep the plan of this name: what was removed, and what remains.

    Raises PlanError where `expire` is asked of a plan that says nothing of retention.
    """
    if is_lab(name):
        if not lab.plan_path(None, name).exists():
            return Swept((), (), ())  # a lab that is down holds nothing
        if not everything and (alive := running_without_source()):
            return Swept((), alive, ())  # until its end, to look at the source is to call it
    with opened(name, regardless=True) as plan:
        retention = _retention(name, plan) if expire else None
        swept = sweep_plan(plan, everything=everything, results=results)
        if retention is None:
            return swept
        told = expire_sets(plan, retention, results, _earliest_clock(plan))
        return replace(
            swept,
            expired=tuple(told.expired),
            kept=tuple(told.kept),
            alive=(*swept.alive, *told.alone),
            remaining=(*swept.remaining, *told.remaining),
        )


def _earliest_clock(plan: Plan) -> datetime:
    """The time by this machine or the recovery store: by a clock that is ahead all is too old."""
    times = [datetime.now(UTC)]
    with suppress(FarsideError):  # what cannot be asked there is told by the expiry
        times.append(plan.recovery.store.now())
    return min(times)


def _retention(name: str, plan: Plan) -> Retention:
    """What a plan says of its sets. Raises PlanError where nothing may be removed by it."""
    if plan.retention is None:
        raise PlanError(
            f"{name}: retention: missing, so every backup set is kept and --expire removes none",
            hint="say in the plan what is kept, as in `retention: {last: 7, days: 30}`",
        )
    if trusted_plans() is not None and not is_lab(name) and not is_path(name):
        raise PlanError(
            f"the saved plan {name!r} expires nothing here: the digests in FARSIDE_TRUSTED_PLANS"
            " do not cover its retention, which any client of Prefect's API can change",
            hint="give --expire the path of a plan file",
        )
    return plan.retention
