"""What a plan's own text shows to be wrong: parts that are the source's, risks that none may take.

Each mistake has the place in the plan that it is about, so that it is reported with its line.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from blocks.domain import FailureDomain
from blocks.engines.registry import catalogue
from blocks.evidence.catalogue import FindingId
from blocks.hosts.ssh import SSHHost
from blocks.ownership import canonical

if TYPE_CHECKING:
    from blocks.plan.model import Plan

Place = tuple[str | int, ...]
Mistake = tuple[Place, str]


def refuse(title: str, mistakes: Iterator[Mistake]) -> None:
    """Raise ValidationError with all mistakes, each at its place; return if there are none."""
    errors = [
        InitErrorDetails(
            type=PydanticCustomError("plan", "{text}", {"text": text}), loc=place, input=None
        )
        for place, text in mistakes
    ]
    if errors:
        raise ValidationError.from_exception_data(title, errors)


def mistakes(plan: "Plan") -> Iterator[Mistake]:
    """Parts of the recovery side that belong to the source, and risks that cannot be accepted."""
    yield from _of_the_source(plan)
    if plan.search_rows and (why := plan.engine.without_rows):
        yield ("search_rows",), f"not with engine {plan.engine.label}: {why}"
    for number, risk in enumerate(plan.accepted):
        known = catalogue()[risk.finding]
        if known.id == FindingId.RECOVERY_IS_SOURCE:
            yield ("accepted", number, "finding"), f"{known.id} cannot be accepted"
        elif known.isolation and risk.subject is None:
            text = f"{known.id} is a broken isolation: say of what it is accepted"
            yield ("accepted", number, "subject"), text


def missing_files(plan: "Plan") -> Iterator[Mistake]:
    """Files on this machine that the plan names and that cannot be read: keys, CAs, secrets."""
    for side in ("source", "recovery"):
        domain: FailureDomain = getattr(plan, side)
        hosts: list[tuple[Place, Any]] = [
            ((side, "hosts", number), host) for number, host in enumerate(domain.hosts)
        ]
        if vault := domain.vault:
            hosts.append(((side, "vault", "host"), vault.machine))
            if folder := vault.folder_here:
                yield from _unreadable((side, "vault", "directory"), folder, "ls")
        for place, host in hosts:
            if isinstance(host, SSHHost):
                yield from _unreadable((*place, "identity_file"), host.identity_file)
        for file in domain.store.own_files():
            yield from _unreadable((side, "store", file.field), file.path)


def _unreadable(place: Place, path: Path, how: str = "read") -> Iterator[Mistake]:
    path = path.expanduser()
    try:
        if how == "ls":
            next(path.iterdir(), None)
        elif not path.read_bytes().strip():
            yield place, f"{path} is empty"
        elif place[-1] == "ca_file" and b"BEGIN CERTIFICATE" not in path.read_bytes():
            yield place, f"{path} holds no certificate in PEM"
    except OSError as error:
        yield place, f"{path}: {error.strerror or error}"


def _of_the_source(plan: "Plan") -> Iterator[Mistake]:
    source, recovery = plan.source, plan.recovery
    served = {canonical(address) for address, _ in plan.engine.source_endpoints}

    def owned(address: str) -> bool:
        return source.owns_name(address) or canonical(address) in served

    text = f"{{}} is an address of {source.name}, the domain that is lost"
    for number, host in enumerate(recovery.hosts):
        if isinstance(host, SSHHost) and owned(host.address):
            yield ("recovery", "hosts", number, "address"), text.format(host.address)
    if vault := recovery.vault:
        lent = vault.machine
        if isinstance(lent, SSHHost) and owned(lent.address):
            yield ("recovery", "vault", "host", "address"), text.format(lent.address)
        if folder := vault.folder_here:
            yield from _keys_of_the_source(source, folder)
    for address, _ in recovery.store.endpoints():
        if owned(address):
            yield ("recovery", "store", recovery.store.address_field), text.format(address)
    for node in plan.engine.predicted_nodes:
        if owned(node.address):
            yield _place_of(plan.engine, node.address), text.format(node.address)
    for number, name in enumerate(recovery.names):
        if source.owns_name(name):
            yield ("recovery", "names", number), f"{name} is inside the names of {source.name}"
    for number, path in enumerate(recovery.paths):
        if source.belongings.paths_in(path):
            yield ("recovery", "paths", number), f"{path} is inside the paths of {source.name}"


def _keys_of_the_source(source: FailureDomain, directory: Path) -> Iterator[Mistake]:
    """A recovery vault on this machine that is the source's, or in what only the source has."""
    real = directory.expanduser().resolve()
    place: Place = ("recovery", "vault", "directory")
    if source.belongings.paths_in(str(directory)) or source.belongings.paths_in(str(real)):
        yield place, f"{directory} is inside the paths of {source.name}, the domain that is lost"
        return
    if theirs := source.vault and source.vault.folder_here:
        lost = theirs.expanduser().resolve()
        if real == lost or lost in real.parents:
            yield place, f"{directory} is the vault of {source.name}, the domain that is lost"


def _place_of(engine: BaseModel, address: str) -> Place:
    """Where the engine's target names an address."""
    target: object = engine.model_dump().get("target")

    def search(value: object, place: Place) -> Iterator[Place]:
        if isinstance(value, dict):
            if value.get("address") == address:
                yield (*place, "address")
            for key, inner in value.items():
                yield from search(inner, (*place, key))
        elif isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                yield from search(inner, (*place, number))

    return next(search(target, ("engine", "target")), ("engine", "target"))
