"""Snapshot: a consistent backup of the live source, sealed and signed, in the source store."""

from blocks.artifact.manifest import Manifest
from blocks.errors import PermanentError
from blocks.evidence.stages import StageName
from blocks.repositories.farside.writer import SetWriter
from tasks.context import Rehearsal, stage
from tasks.preflight import Survey, dangers

STAGE = StageName.SNAPSHOT


@stage(STAGE, retries=2, limit=24 * 3600)
def snapshot(rehearsal: Rehearsal, survey: Survey, writer: SetWriter) -> Manifest:
    """Capture into `writer`. Run again, it begins again under the same names.

    What preflight saw may be hours old by then: the source is surveyed again. What endangers the
    source may have come while it was backed up: it is told as preflight would have.
    """
    plan, facts = rehearsal.plan, survey.facts
    with rehearsal.clock.stage(STAGE) as clock:
        if clock.attempt > 1:
            with clock.step("survey"):
                facts = plan.engine.survey(plan.source)
        writer.begin(clock.moved)
        captured = plan.engine.capture(plan.source, writer, facts, clock)
        rehearsal.findings.add(*dangers(rehearsal, captured.facts))
        with clock.step("sign"):
            if plan.keys.signing_key is None:
                raise PermanentError(
                    "a fresh backup must be signed",
                    operation=STAGE,
                    domain=plan.source.name,
                    hint="name keys.signing_key in the plan, or select a retained set",
                )
            return writer.finish(captured, plan.source.secret(plan.keys.signing_key))
