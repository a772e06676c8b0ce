"""Transfer: across the gap, from store to store, until only the newest instant is missing."""

import math
import time

from blocks.artifact.manifest import Manifest, digest_of
from blocks.evidence.stages import StageName
from blocks.repositories.farside.binding import KnownState
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.writer import SetWriter
from tasks.context import Rehearsal, stage
from tasks.log_end import note_end_of_log

STAGE = StageName.TRANSFER
CAUGHT_UP_SECONDS = 2.0
"""A round of log that took less than this leaves nothing worth another round."""
CONVERGES = 0.8
"""A round that took longer than this part of the one before shows a log that the link cannot catch
up with: further rounds would lose no less."""
ROUNDS = 20


@stage(STAGE, retries=1, limit=24 * 3600)
def transfer(
    rehearsal: Rehearsal, writer: SetWriter, copier: SetCopier, manifest: Manifest
) -> KnownState:
    """Copy the set, then the log that has come since, round by round. Run again, it resumes."""
    with rehearsal.clock.stage(STAGE) as clock:
        copier.begin(clock.moved)
        clock.expect(sum(item.sealed_bytes for item in manifest.objects))
        with clock.step("base") as step:
            step.bytes = copier.copy(manifest.objects, writer)
        with clock.step("log") as step:
            step.bytes, before = 0, math.inf
            for _ in range(ROUNDS):
                began = time.monotonic()
                note_end_of_log(rehearsal)
                index = writer.log()
                step.bytes += copier.copy(index.objects, writer)
                writer.publish(index, copier.target)
                copier.finish(manifest)
                took = time.monotonic() - began
                if took < CAUGHT_UP_SECONDS or took > CONVERGES * before:
                    break
                before = took
            writer.publish(index, writer.store)
        return KnownState(manifest.set_id, index.sequence, digest_of(manifest))
