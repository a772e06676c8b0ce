"""Bring the lab up, say how it is, take it down."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab import fence, namespaces, processes
from deployments.lab.accounts import Account, service_account
from deployments.lab.domains import EAST, WEST
from deployments.lab.places import (
    DEFAULT_NETWORK,
    STAMP,
    Network,
    Places,
    check_owner,
    locked,
    no_lab,
)
from deployments.lab.services import all_services
from deployments.lab.site import Endpoint
from deployments.lab.starting import Say
from deployments.lab.state import State, load_state, save_state

DEFAULT_SCALE = 10


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service: `pid` is None if it does not run."""

    name: str
    pid: int | None
    endpoint: Endpoint | None
    ready: bool


@dataclass(frozen=True, slots=True)
class Status:
    """How the lab is. `up` if everything runs and nothing is lost."""

    state: State | None
    lost: bool
    services: tuple[ServiceStatus, ...]

    @property
    def up(self) -> bool:
        """Whether the lab is whole: built, not lost, and every service ready."""
        built = self.state is not None and self.state.built
        return built and not self.lost and all(s.pid and s.ready for s in self.services)


def up(
    places: Places,
    scale: int | None,
    say: Say,
    parts: frozenset[str] = frozenset(),
    network: Network | None = None,
) -> bool:
    """Make the lab, or start what is missing in it. True if it was made.

    `parts` are added to those that it has; `network` is for a new one.

    Raises PermanentError with what is wrong and what to do.
    """
    # Loaded where it is needed: `lose` must be quick.
    from deployments.lab import building, rendering, runtime

    if network == "netns":
        runtime.check_packet_filter(places)
    account = service_account()
    _make_root(places, account)
    with locked(places):
        state = load_state(places)
        fresh = state is None or not state.built
        if state is None or not state.built:
            _clear(places)
            network = network or DEFAULT_NETWORK
            state = building.build(places, scale or DEFAULT_SCALE, account, say, parts, network)
        elif network not in (None, state.network):
            raise PermanentError(
                f"the lab is there with network {state.network}, not {network}",
                operation="lab up",
                hint="`python -m deployments.lab down` first",
            )
        elif scale is not None and scale != state.scale:
            raise PermanentError(
                f"the lab is there with scale {state.scale}, not {scale}",
                operation="lab up",
                hint="`python -m deployments.lab down` first",
            )
        else:
            _check_network(state)
            if fence.is_raised(places):
                say("giving east its addresses back")
                fence.lift(places, state.sites)
            if not parts <= state.parts:
                state = replace(state, parts=state.parts | parts)
                save_state(places, state)
            building.start_all(places, state, account, say)
        rendering.render(places, state.sites, account)
    return fresh


def status(places: Places) -> Status:
    """Look, and change nothing."""
    state = load_state(places)
    if state is None or not state.built:
        return Status(state, lost=False, services=())
    lost = fence.is_raised(places)
    found = []
    for site in state.sites:
        if lost and site.domain is EAST:
            continue
        for service in all_services(places, site):
            pid = processes.running(places, service.name)
            ready = pid is not None and service.ready()
            found.append(ServiceStatus(service.name, pid, service.endpoint, ready))
    return Status(state, lost, tuple(found))


def down(places: Places) -> list[Path]:
    """Kill all of the lab and remove all its files. Returns what is in the root and not its own.

    Works on half a lab as well, and on none. Raises PermanentError if a process survives.
    """
    if not places.root.is_dir():
        _kill_all(places)
        return []
    with locked(places):
        _clear(places)
        places.lock.unlink(missing_ok=True)
        left = sorted(places.root.iterdir())
        if not left:
            places.root.rmdir()
    return left


def lose(places: Places, name: str) -> None:
    """Lose a domain. Raises PermanentError."""
    with locked(places):
        sites = _built(places).sites
        fence.check_can_be_lost(name, sites)
        fence.lose(places, sites)


def check_can_be_lost(places: Places, name: str) -> None:
    """Whether `lose` could do its work; changes nothing. Raises PermanentError."""
    fence.check_can_be_lost(name, _built(places).sites)


def wan(places: Places, *, rate: str | None, carries: bool) -> None:
    """Cut the WAN link, or let it carry again, at a rate in tc's words. Raises PermanentError."""
    with locked(places):
        sites = _built(places).sites
        if not sites[0].namespaces:
            raise PermanentError(
                "a lab on loopback has no WAN link",
                operation="lab wan",
                hint="`down`, then `up --network netns`",
            )
        if rate is not None:
            namespaces.limit(sites, rate)
        (namespaces.join if carries else namespaces.cut)(sites)


def lift(places: Places) -> None:
    """Undo the fence. Without effect where there is none."""
    if not places.root.is_dir():
        return
    with locked(places):
        state = load_state(places)
        if state is not None and fence.is_raised(places):
            _check_network(state)
            fence.lift(places, state.sites)


def _built(places: Places) -> State:
    state = load_state(places)
    if state is None or not state.built:
        raise no_lab(places)
    _check_network(state)
    return state


def _check_network(state: State) -> None:
    """Raise PermanentError if the lab's namespaces are gone, or another lab's by now."""
    if state.namespaces_gone:
        raise PermanentError(
            "the machine was restarted since the lab was made: its network is gone",
            operation="lab",
            hint="`python -m deployments.lab down`, then `up`",
        )


def _make_root(places: Places, account: Account) -> None:
    check_owner(places)
    places.root.mkdir(parents=True, exist_ok=True)
    if not places.state.exists() and any(not _is_own(path) for path in places.root.iterdir()):
        raise PermanentError(
            f"{places.root} is not empty, and no lab",
            operation="lab up",
            hint="give an empty or new directory: --root, or FARSIDE_LAB",
        )
    places.root.chmod(0o711 if account.other else 0o700)
    if not account.can_enter(places.root):
        with suppress(OSError):  # one with something in it stays
            places.root.rmdir()
        raise PermanentError(
            f"the services run as {account.name}, which cannot enter {places.root}",
            operation="lab up",
            hint="put the lab where everybody may pass: --root /var/tmp/NAME, or FARSIDE_LAB",
        )


def _is_own(path: Path) -> bool:
    return path.name in (".lock", ".lab.json.new") or (path / STAMP).exists()


def _kill_all(places: Places) -> None:
    for tree in (places.fence, places.tree(EAST.name), places.tree(WEST.name)):
        processes.kill_domain(places, tree)


def _clear(places: Places) -> None:
    """Kill what runs and remove what the lab made; the lock stays."""
    _kill_all(places)
    state = None
    with suppress(PermanentError):  # one that cannot be read: stamps tell what is the lab's
        state = load_state(places)
    if state is not None and state.namespaces:
        (namespaces.forget if state.namespaces_gone else namespaces.remove)(state.namespaces)
    known = state is not None
    for top in places.tops:
        if not top.is_symlink() and top.is_dir():
            top.chmod(0o700)
            if state is not None or (top / STAMP).exists():
                shutil.rmtree(top, onerror=_open_and_retry)
                known = True
    if known:
        places.state.unlink(missing_ok=True)


def _open_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
    """What a host's user has closed is opened, then removed."""
    Path(path).parent.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        Path(path).chmod(0o700)
        shutil.rmtree(path)
    else:
        function(path)
