"""What every vault can do, and how it fails."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

from pydantic import SecretStr

from blocks.block import DomainPart
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host

PUBLIC = ".pub"
"""What the name of a secret's public half ends with."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class SecretMissing(PermanentError):
    """The vault holds no secret of that name."""

    finding = FindingId.KEY_ONLY_IN_SOURCE


class VaultLocked(PermanentError):
    """The vault's own command does not give the secret out."""

    finding = FindingId.KEY_CHAIN_IN_SOURCE


class KeyVault(DomainPart, ABC):
    """Keeps secrets under names."""

    @abstractmethod
    def read(self, name: str) -> SecretStr:
        """The secret called `name`, without a line end.

        Raises SecretMissing, PermanentError where it cannot be read, TransientError where the
        vault does not answer.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all secrets, sorted. Raises as `read` does."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open; the next use opens it again."""

    @property
    def machine(self) -> Host | None:
        """The host that holds the secrets; None where none does."""
        return None

    @property
    def folder_here(self) -> Path | None:
        """The directory of the secrets on farside's own machine; None if they are elsewhere."""
        return None

    def exposed(self) -> dict[str, str]:
        """Secret -> why other accounts could read or replace it; raises as `read` does."""
        return {}

    def runs_as(self, process: str) -> bool:  # noqa: ARG002 (others run their own command)
        """Whether a process's command line is the vault's own, giving a secret out."""
        return False

    def locked(self, name: str) -> str:  # noqa: ARG002 (others give out what can be used)
        """What has locked a secret: `age`, `GnuPG`, ...; empty if nothing known has.

        Told by how it begins, on the vault's own side: no secret is read. Raises as `read` does.
        """
        return ""

    def identities(self) -> dict[str, str]:
        """age recipient -> name of the identity that opens what is sealed to it.

        Known without reading an identity: next to one called NAME, the vault may hold its recipient
        under NAME.pub. Raises as `read` does.
        """
        names = set(self.names())
        return {
            self.read(f"{name}{PUBLIC}").get_secret_value().strip(): name
            for name in sorted(names)
            if f"{name}{PUBLIC}" in names
        }
