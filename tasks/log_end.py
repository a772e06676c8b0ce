"""The recovery point by the log: a quiet source has no transaction whose time would tell it.

Where the restored service has replayed all that the source's log held at a moment, nothing that
was acknowledged until that moment is lost.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from blocks.engines.abilities import HasLog
from blocks.engines.restored import Restored
from blocks.errors import FarsideError
from tasks.context import Rehearsal


def note_end_of_log(rehearsal: Rehearsal) -> None:
    """Note where the source's log ends now. Without effect where it does not answer, or has none.

    The moment is taken first: what comes between the two belongs to what the log holds.
    """
    engine = rehearsal.plan.engine
    if not isinstance(engine, HasLog):
        return
    with suppress(FarsideError):
        at = rehearsal.clock.now()
        end = engine.end_of_log(rehearsal.source)
        if end is not None:
            rehearsal.log_ends.append((at, end))


def recovered_by_log(rehearsal: Rehearsal, service: Restored) -> datetime | None:
    """The latest noted moment up to which the log was replayed, by the source's clock.

    None where it was replayed up to none of them. Raises FarsideError.
    """
    if not rehearsal.log_ends:
        return None
    replayed = service.end_of_replay()
    if replayed is None:
        return None
    known = [at for at, end in rehearsal.log_ends if end <= replayed]
    ahead = rehearsal.source_clock.correction if rehearsal.source_clock else 0.0
    return max(known) + timedelta(seconds=ahead) if known else None


def why_unknown(rehearsal: Rehearsal) -> str:
    """Why no recovery point is known."""
    told = "no restored transaction bears a time, the plan has no heartbeat"
    if not rehearsal.log_ends:
        return (
            f"{told}, and the source did not say where its log ended (of a standby, the primary"
            " is asked: let the same role of the plan in there, from the same host)"
        )
    return f"{told}, and the log was replayed to no point at which the source was seen"
