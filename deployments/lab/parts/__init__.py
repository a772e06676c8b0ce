"""The databases of the lab: each module here is one, found by its file."""

import pkgutil
from importlib import import_module

from deployments.lab.part import Part
from deployments.lab.site import Host, Site


def _found() -> tuple[Part, ...]:
    """In the order of their addresses in east."""
    modules = (import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))
    parts: list[Part] = [module.PART for module in modules]
    return tuple(sorted(parts, key=lambda part: part.hosts["east"][0].number))


PARTS = _found()
OPTIONAL = tuple(part.name for part in PARTS if not part.always)
"""Parts that are there only where a plan needs them."""


def of(site: Site) -> tuple[Part, ...]:
    """The parts that are there."""
    return tuple(part for part in PARTS if part.always or part.name in site.parts)


def hosts(domain: str) -> tuple[Host, ...]:
    """The hosts of all parts in a domain."""
    return tuple(
        Host(host.name, host.number, "" if part.always else part.name)
        for part in PARTS
        for host in part.hosts[domain]
    )


def certified(site: Site) -> tuple[Host, ...]:
    """The hosts of a domain, of all parts, that have certificates of its authority."""
    return tuple(host for part in PARTS if part.certified for host in part.hosts[site.name])
