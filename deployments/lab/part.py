"""The contract of a part: one database of the lab, in one file of `parts/`."""

# ruff: noqa: B027 (hooks: not every part has something to do there)

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from deployments.lab.accounts import Account
from deployments.lab.credentials import Vaults
from deployments.lab.places import Places
from deployments.lab.processes import Service
from deployments.lab.site import Endpoint, Host, Site
from deployments.lab.starting import Starter

CLIENTS = Path(__file__).with_name("clients")
_WRITER = "writer.py"


class Part(ABC):
    """A database in east, the application's writer to it, and what its restored twin needs in west.

    A module `parts/NAME.py` has one as `PART`. With it go `clients/NAME.py`, by which the writer
    speaks to the database, `plans/PLAN.yaml` and `drills/PLAN.py` for each of its plans.
    """

    name: ClassVar[str]
    """As the plans' engine is called, `--with` and the files that belong to it."""
    always: ClassVar[bool] = False
    """Whether every lab has it; else only one that was brought up with it."""
    hosts: ClassVar[Mapping[str, Sequence[Host]]]
    """Its hosts in each domain, by the domain's name, with numbers that no other part has."""
    certified: ClassVar[bool] = False
    """Whether its hosts have certificates of their domain's authority, as servers and clients."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What the writer's client imports, besides Python's standard library."""

    @property
    def plans(self) -> tuple[str, ...]:
        """Its plans, by name."""
        return (self.name,)

    def check(self) -> None:
        """Raise PermanentError where its programs are not installed, with what to install."""

    def mint(self, places: Places, vaults: Vaults) -> None:
        """Make its secrets in both domains; every lab has them, whichever parts it has."""

    def install(self, places: Places, domain: str, account: Account) -> None:
        """Copy its programs into a domain's runtime; done for every new lab.

        Raises PermanentError.
        """

    def build(self, places: Places, site: Site, account: Account, scale: int) -> None:
        """Make the data of a part that every lab has, while a new lab's tools are copied.

        Raises PermanentError.
        """

    @abstractmethod
    def endpoints(self, site: Site) -> Sequence[Endpoint]:
        """Where its servers listen in east."""

    def kept_free(self, site: Site) -> Sequence[Endpoint]:
        """Where in west what is restored listens, if no other lab may have it in use."""
        del site
        return ()

    @abstractmethod
    def servers(self, places: Places, site: Site) -> Sequence[Service]:
        """Its servers in east, in the order in which `status` shows them."""

    @abstractmethod
    def writers(self, places: Places, site: Site) -> Sequence[Service]:
        """What writes to it from the application's host."""

    @abstractmethod
    def start(self, places: Places, site: Site, starter: Starter) -> None:
        """Make it if it is not there, start what does not run, wait until all of it works.

        Also after a kill at any moment. Raises PermanentError.
        """

    @abstractmethod
    def values(self, places: Places, east: Site, west: Site) -> dict[str, Any]:
        """What its plans name as $NAME, besides what `rendering` gives for every host."""


def writer(  # noqa: PLR0913 (each is an option of the process)
    places: Places,
    site: Site,
    part: str,
    arguments: Sequence[str] = (),
    *,
    name: str = "",
    environment: Mapping[str, str] | None = None,
) -> Service:
    """The writer of the heartbeat to a part's database, with the client of `clients/PART.py`.

    `name` is what the service, its log and its ledger are called by; else the part's.
    """
    runtime = places.runtime(site.name)
    ledger = places.ledger / f"{name or part}.tsv"
    called = name or f"{part}-writer"
    return Service(
        name=f"{site.name}-{called}",
        tree=places.tree(site.name),
        argv=(
            *(str(places.python(site.name)), "-P", str(runtime / _WRITER)),
            *(str(runtime / "clients" / f"{part}.py"), *arguments, str(ledger)),
        ),
        cwd=places.host(site.name, "app"),
        log=places.logs(site.name) / f"{called}.log",
        ready=lambda: ledger.exists() and ledger.stat().st_size > 0,
        namespace=site.namespace("app"),
        environment=environment or {},
    )
