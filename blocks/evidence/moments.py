"""Points in time, as the evidence keeps them: always with a time zone, UTC in JSON."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, WithJsonSchema


def in_utc(moment: datetime) -> datetime:
    """`moment` in UTC. Raises ValueError if it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without an offset from UTC")
    return moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """`moment` in UTC, ISO 8601 with Z. Raises ValueError if it has no time zone."""
    return in_utc(moment).isoformat().replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    AfterValidator(in_utc),
    PlainSerializer(iso, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A datetime that pydantic reads and writes as UTC with Z."""
