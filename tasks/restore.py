"""Restore: from the recovery store, on the recovery hosts, into the shape that they have."""

from blocks.engines.base import Restoration, Service
from blocks.helper import sweep_host
from blocks.sets import SetReader
from tasks.clock import StageInProgress
from tasks.diagnose import FoundProblems
from tasks.key_fetch import Opening
from tasks.preflight import Survey
from tasks.rehearsal import Rehearsal, stage

STAGE = "restore"


def restoration(
    rehearsal: Rehearsal, reader: SetReader, opening: Opening, clock: StageInProgress
) -> Restoration:
    """All that the engine may use, from here to the end of verification."""
    plan = rehearsal.plan
    host = plan.recovery.host(plan.engine.requirements(opening.manifest.engine_facts).host)
    return Restoration(
        rehearsal_id=rehearsal.id,
        recovery=plan.recovery,
        reader=reader,
        manifest=opening.manifest,
        log=opening.log,
        identity=opening.identity,
        steps=clock,
        host=host,
        work=rehearsal.work(host),
    )


@stage(STAGE, retries=1, limit=24 * 3600)
def restore(rehearsal: Rehearsal, survey: Survey, reader: SetReader, opening: Opening) -> Service:
    """Bring the service up. Run again, it first removes what the attempt before has made.

    Raises FoundProblems, and touches nothing, where preflight saw why no restore can succeed.
    """
    with rehearsal.clock.stage(STAGE) as clock:
        if survey.blockers:
            raise FoundProblems(STAGE, survey.blockers)
        using = restoration(rehearsal, reader, opening, clock)
        if reader.marked:
            with clock.step("clear"):
                sweep_host(using.host, rehearsal.id, remove=True)
        reader.begin(clock.moved)
        clock.expect(sum(item.sealed_bytes for item in opening.manifest.objects))
        return rehearsal.plan.engine.restore(using)
