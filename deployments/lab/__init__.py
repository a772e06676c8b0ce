"""The lab: two failure domains, `east` and `west`, on one machine.

`up` makes it or heals it, `down` removes it; `python -m deployments.lab` does the same by hand.
Importing this package is cheap: what the lab needs is loaded when it is used.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import PermanentError

_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is up. `fresh` if this call made it."""

    root: Path
    fresh: bool


def up(
    root: Path | str | None = None,
    scale: int | None = None,
    on_step: Callable[[str], None] | None = None,
    parts: Collection[str] = (),
    network: str | None = None,
) -> Lab:
    """Make the lab, or start what is missing in it; a lab that is up is left alone.

    `scale` is pgbench's (15 MB each; a new lab's default is 10), `on_step` is told what is being
    done; `parts` (of `parts.OPTIONAL`) are added to those that the lab has; `network` is "loopback"
    or "netns", for a new lab (loopback if nobody says). The work is done in a process of its own,
    so that no service is the caller's child.

    Raises PermanentError with what is wrong and what to do.
    """
    from deployments.lab.places import Places

    places = Places.at(root)
    argv = [sys.executable, "-m", "deployments.lab", "--root", str(places.root), "up", "--events"]
    if scale is not None:
        argv += ["--scale", str(scale)]
    if network is not None:
        argv += ["--network", network]
    for part in parts:
        argv += ["--with", part]
    with subprocess.Popen(
        argv,
        cwd=_CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        fresh, error = None, None
        for line in child.stdout:
            event = json.loads(line)
            if "step" in event and on_step:
                on_step(event["step"])
            fresh = event.get("fresh", fresh)
            error = event.get("error", error)
        trouble = child.stderr.read().strip()
    if error is not None:
        raise PermanentError(error["message"], operation="lab up", hint=error["hint"])
    if child.returncode != 0 or fresh is None:
        raise PermanentError(
            f"ended with {child.returncode}: {trouble[-2000:]}",
            operation="lab up",
            hint="`python -m deployments.lab down`, then `up`",
        )
    return Lab(places.root, fresh)


def down(root: Path | str | None = None) -> None:
    """Kill all of the lab and remove all its files; without effect where there is none.

    Raises PermanentError if a process survives.
    """
    from deployments.lab import lifecycle
    from deployments.lab.places import Places

    lifecycle.down(Places.at(root))


def is_up(root: Path | str | None = None) -> bool:
    """True if every service of the lab runs and nothing is lost."""
    from deployments.lab import lifecycle
    from deployments.lab.places import Places

    return lifecycle.status(Places.at(root)).up


def is_lost(root: Path | str | None = None) -> bool:
    """True if the lab's source is lost: its fence is raised. Looks at files alone.

    Raises PermanentError if the root is somebody else's.
    """
    from deployments.lab import fence
    from deployments.lab.places import Places, check_owner

    places = Places.at(root)
    check_owner(places)
    return fence.is_raised(places)


def plans() -> list[str]:
    """The names of the lab's plans."""
    from deployments.lab import catalogue

    return catalogue.names()


def parts_of(name: str) -> frozenset[str]:
    """What the lab must have for a plan, besides what it always has."""
    from deployments.lab import catalogue

    return catalogue.parts_of(name)


def plan_path(root: Path | str | None, name: str) -> Path:
    """Where a lab keeps a plan. Raises PermanentError for a name that is none."""
    from deployments.lab import catalogue
    from deployments.lab.places import Places

    return catalogue.path_of(Places.at(root), name)
