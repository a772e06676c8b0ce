"""Which plans the lab has, and where a lab keeps them."""

from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab.places import Places

TEMPLATES = Path(__file__).with_name("plans")


def names() -> list[str]:
    """The plans that there are; asked of every site's commands, which may have no lab installed."""
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


def parts_of(name: str) -> frozenset[str]:
    """What the lab must have for a plan, besides what it always has."""
    from deployments.lab.parts import PARTS

    return frozenset(part.name for part in PARTS if name in part.plans and not part.always)


def path_of(places: Places, name: str) -> Path:
    """Where a lab keeps a plan. Raises PermanentError for a name that is none."""
    if name not in names():
        raise PermanentError(
            f"the lab has no plan {name!r}",
            operation="lab",
            hint=f"there are: {', '.join(names())}",
        )
    return places.plans / f"{name}.yaml"
