"""Which backup sets are kept: what a plan says of it, applied to what one store holds."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.artifact.manifest import SetHeader

CLOCKS = timedelta(hours=1)
"""How far the clocks of a source and of who expires its sets may be apart."""


class Retention(BaseModel):
    """How many sets are kept, and for how long. What either keeps is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    last: int | None = Field(
        default=None,
        ge=1,
        description="How many of the newest sets are kept. Without it, only days decides.",
    )
    days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Every set that is younger than so many days is kept. Without it, only last "
        "decides.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Retention":
        if self.last is None and self.days is None:
            raise ValueError("give last, days or both; without retention every set is kept")
        return self


@dataclass(frozen=True, slots=True)
class Judged:
    """A set, and why it is kept; without a reason it is expired."""

    header: SetHeader
    kept: str | None


def judge(
    sets: Iterable[SetHeader], retention: Retention, verified: Collection[str], now: datetime
) -> tuple[Judged, ...]:
    """What a retention says of the complete sets in one store, newest first.

    Whatever it says, the newest set is kept, and the newest of those that are `verified` (ids). One
    that says that it was taken later than now is kept, and takes no other's place: else a source's
    clock that was ahead once would have every later set removed as too old.
    """
    ordered = sorted(sets, key=lambda item: (item.taken_at, item.set_id), reverse=True)
    ahead = [item for item in ordered if item.taken_at > now + CLOCKS]
    usual = ordered[len(ahead) :]
    proven = next((item for item in usual if item.set_id in verified), None)

    def reason(place: int, item: SetHeader) -> str | None:
        if retention.last is not None and place < retention.last:
            return f"by last: {retention.last}"
        if retention.days is not None and now - item.taken_at < timedelta(days=retention.days):
            return f"by days: {retention.days}"
        if item is proven:
            return "as the newest verified"
        return "as the newest" if place == 0 else None

    return (
        *(Judged(item, "as their clock was ahead") for item in ahead),
        *(Judged(item, reason(place, item)) for place, item in enumerate(usual)),
    )
