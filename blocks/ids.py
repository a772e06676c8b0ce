"""What a rehearsal names after itself: only what bears the whole id of one is taken for its own."""

import re
from datetime import UTC, datetime

PREFIX = "farside_"
_NAME = re.compile(rf"{PREFIX}(r[0-9]{{8}})_([0-9]{{6}})_([0-9a-f]{{6}})", re.ASCII)


def name_of(rehearsal_id: str) -> str:
    """The name of what a rehearsal makes where letters, digits and underscores alone may stand."""
    return PREFIX + re.sub(r"[^a-z0-9]", "_", rehearsal_id.lower())


def id_in(name: str) -> str | None:
    """The id of the rehearsal in a name; None for a name that is not farside's."""
    found = _NAME.fullmatch(name)
    return "-".join(found.groups()) if found else None


def began(rehearsal_id: str) -> datetime | None:
    """When the rehearsal of an id began, by the clock of the machine that made the id.

    None for what is no id of a rehearsal.
    """
    try:
        _, day, time, _ = re.split("r|-", rehearsal_id)
        return datetime.strptime(day + time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
