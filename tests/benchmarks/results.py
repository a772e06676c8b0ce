"""What a benchmark yields: a ratio, and what it was made of."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from time import monotonic
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    `ratio` is `reference / farside` where both were timed, so that above 1 farside is faster; where
    a benchmark has another one, `meaning` says which. `lowest` and `highest` are over the rounds.
    """

    name: str
    meaning: str
    ratio: float
    lowest: float
    highest: float
    farside: str
    reference: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def compare(name: str, against: str, size: int, ours: list[float], theirs: list[float]) -> Result:
    """Two lists of seconds, one entry a round; the ratio is that of their medians."""
    rounds = [reference / own for own, reference in zip(ours, theirs, strict=True)]
    return Result(
        name=name,
        meaning=f"speed relative to {against}",
        ratio=median(theirs) / median(ours),
        lowest=min(rounds),
        highest=max(rounds),
        farside=_speed(size, ours),
        reference=_speed(size, theirs),
        details={"bytes": size, "farside_seconds": ours, "reference_seconds": theirs},
    )


def alternately(
    rounds: int, *sides: Callable[[int], object], before: Callable[[], None]
) -> list[list[float]]:
    """Seconds of each side in each round; who begins changes from round to round."""
    seconds: list[list[float]] = [[0.0] * rounds for _ in sides]
    for number in range(rounds):
        order = list(enumerate(sides))
        for index, side in order if number % 2 == 0 else reversed(order):
            before()
            started = monotonic()
            side(number)
            seconds[index][number] = round(monotonic() - started, 3)
    return seconds


def table(results: list[Result]) -> Table:
    """All results, for a terminal."""
    made = Table("benchmark", "ratio", "lowest", "highest", "farside", "reference", "meaning")
    for result in results:
        numbers = (f"{n:.2f}" for n in (result.ratio, result.lowest, result.highest))
        made.add_row(result.name, *numbers, result.farside, result.reference, result.meaning)
    return made


def _speed(size: int, seconds: list[float]) -> str:
    middle = median(seconds)
    return f"{middle:.2f} s, {size / middle / 1e6:.0f} MB/s"
