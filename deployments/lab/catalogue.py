"""Which plans the lab has, and where a lab keeps them."""

import re
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab.domains import PARTS
from deployments.lab.places import Places

TEMPLATES = Path(__file__).with_name("plans")


def names() -> list[str]:
    """The plans that there are."""
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


def parts_of(name: str) -> frozenset[str]:
    """What the lab must have for a plan: the parts that its engine is called by."""
    kind = re.search(r"^  kind: (\w+)$", (TEMPLATES / f"{name}.yaml").read_text(), re.MULTILINE)
    return PARTS & {kind[1]} if kind else frozenset()


def path_of(places: Places, name: str) -> Path:
    """Where a lab keeps a plan. Raises PermanentError for a name that is none."""
    if name not in names():
        raise PermanentError(
            f"the lab has no plan {name!r}",
            operation="lab",
            hint=f"there are: {', '.join(names())}",
        )
    return places.plans / f"{name}.yaml"
