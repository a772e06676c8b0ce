"""What of the source each machine of the recovery side could reach while it still answered."""

from dataclasses import dataclass, field

from tasks.knocks import Knocks


@dataclass(slots=True)
class Reach:
    """The positive control of the fence's proof. Machines are named as DOMAIN/HOST.

    `open` are the endpoints that answered, by machine; `addresses` what names led to there; `url`
    reads an object of the source's store where that is known by name only, and `reads` are the
    machines that could. `knocks` are the calls with which the fence was tried first.
    """

    open: set[tuple[str, str, int]] = field(default_factory=set)
    addresses: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    url: str | None = field(default=None, repr=False)
    reads: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    knocks: Knocks | None = None
