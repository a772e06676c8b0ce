"""A failure domain: hosts, store, vault and networks that are lost together."""

from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, ClassVar

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from blocks.block import DomainPart, is_ip
from blocks.errors import PermanentError
from blocks.hosts import AnyHost
from blocks.hosts.host import Host
from blocks.hosts.ssh import SSHHost
from blocks.ownership import Belongings
from blocks.stores import AnyStore
from blocks.vaults import AnyVault


class FailureDomain(DomainPart):
    """What is lost together. Everything in it knows its name and notes its uses under it."""

    _block_type_name: ClassVar[str | None] = "farside failure domain"
    _block_type_slug: ClassVar[str | None] = "farside-failure-domain"
    _description: ClassVar[str | None] = "Hosts, store, vault and networks that are lost together."

    name: str = Field(
        description="What plan, records and messages call this domain: letters, digits, dots, "
        "dashes and underscores.",
        pattern=r"^[A-Za-z0-9._-]+$",
    )
    networks: list[IPv4Network | IPv6Network] = Field(
        default=[],
        description="Networks whose addresses belong to the domain, as in 10.1.0.0/16: whatever "
        "names one of them belongs to it. A fence of nftables cuts them off.",
    )
    names: list[str] = Field(
        default=[],
        description="DNS suffixes whose names belong to the domain, as in east.example (which "
        "db.east.example is in).",
    )
    paths: list[Annotated[str, Field(pattern=r"^/.*[^/]$")]] = Field(
        default=[],
        description="Directories that only this domain has, as in /mnt/east: mounts from it, and "
        "files of it that farside's own machine holds.",
    )
    hosts: list[AnyHost] = Field(
        description="The hosts that a rehearsal uses; each has its own name.", min_length=1
    )
    store: AnyStore = Field(description="The object store that holds the domain's backup sets.")
    vault: AnyVault | None = Field(
        default=None,
        description="Where the domain keeps its private keys and passwords. The recovery domain "
        "needs one; the source needs one for a fresh backup.",
    )

    _aliases: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("networks")
    @classmethod
    def _plainly_written(
        cls, value: list[IPv4Network | IPv6Network]
    ) -> list[IPv4Network | IPv6Network]:
        # No packet bears such an address: a filter for it would stop nothing.
        for network in value:
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
                raise ValueError(f"{network} is IPv4 inside IPv6: write it as IPv4")
        return value

    @model_validator(mode="after")
    def _adopt_parts(self) -> "FailureDomain":
        names = [host.name for host in self.hosts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two hosts are called {', '.join(twice)}")
        for host in self.machines()[len(self.hosts) :]:
            if host.name in names:
                raise ValueError(f"the vault's host is another one than {host.name}, and called so")
        self.join(self.name)
        for part in self._parts():
            part.join(self.name)
        return self

    def host(self, name: str) -> Host:
        """The host called `name`; raises PermanentError naming those that there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise PermanentError(
            f"no host {name!r}; there are {', '.join(host.name for host in self.hosts)}",
            domain=self.name,
            hint="correct the plan",
        )

    def secret(self, name: str) -> SecretStr:
        """A secret from the domain's own vault. Raises SecretMissing, or what the vault raises."""
        if self.vault is None:
            raise PermanentError(
                f"no vault to ask for {name!r}",
                operation="key fetch",
                domain=self.name,
                hint="give the domain a vault in the plan",
            )
        return self.vault.read(name)

    def tell_apart(self, other: "FailureDomain") -> None:
        """Learn by which short names this domain is known, and `other` is not."""
        self._aliases = tuple(sorted(self._short_names() - other._short_names()))

    def _short_names(self) -> set[str]:
        names = {host.name for host in self.machines()}
        names |= {
            host.address.partition(".")[0] for host in self.machines() if not is_ip(host.address)
        }
        return {name.lower() for name in (*names, self.store.short_name)}

    @property
    def belongings(self) -> Belongings:
        """By which addresses, names and paths the domain is known."""
        return Belongings(
            networks=tuple(str(network) for network in self.networks),
            suffixes=tuple(self.names),
            places=tuple(sorted(self._places())),
            paths=tuple(self.paths),
            aliases=self._aliases,
        )

    def owns_address(self, address: str) -> bool:
        """Whether an IP address is in the domain's networks or one of its parts' own."""
        return self.belongings.owns_address(address)

    def owns_name(self, name: str) -> bool:
        """Whether a DNS name, or an IP address given as one, belongs to the domain."""
        return self.belongings.owns_name(name)

    def credentials(self) -> set[str]:
        """Names, as in the ledger, of all credentials that its parts would use."""
        return {name for part in self._parts() for name in part.credentials()}

    def endpoints(self, more: Iterable[tuple[str, int]] = ()) -> list[tuple[str, int]]:
        """Where the domain answers: SSH of hosts and vault, the store, and `more`; none twice."""
        ssh = [(host.address, host.port) for host in self.machines() if isinstance(host, SSHHost)]
        return list(dict.fromkeys([*ssh, *self.store.endpoints(), *more]))

    def close(self) -> None:
        """Close all connections; the next use makes them again."""
        with ExitStack() as stack:
            for part in self._parts():
                stack.callback(part.close)

    def _parts(self) -> list[Host | AnyStore | AnyVault]:
        return [*self.hosts, self.store, *([self.vault] if self.vault else [])]

    def machines(self) -> list[Host]:
        """Its hosts, and the one that its vault is on, if that is another one."""
        known, lent = {_machine(host) for host in self.hosts}, self.vault and self.vault.machine
        return [*self.hosts, *([lent] if lent and _machine(lent) not in known else [])]

    def _places(self) -> set[str]:
        # A local host is part of farside's own machine, not of a place that can be lost alone.
        hosts = {host.address for host in self.machines() if isinstance(host, SSHHost)}
        return hosts | {address for address, _ in self.store.endpoints()}


def _machine(host: Host) -> tuple[str, int]:
    """What tells machines apart, whatever a plan calls them."""
    return (host.address, host.port) if isinstance(host, SSHHost) else ("", 0)
