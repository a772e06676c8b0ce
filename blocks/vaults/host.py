"""Secrets in files on a host, or told by a command there."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from typing_extensions import override

from blocks.block import Directory
from blocks.errors import PermanentError
from blocks.hosts import AnyHost
from blocks.hosts.host import FileMissing, Host
from blocks.hosts.process import CommandFailed, CommandTimeout
from blocks.hosts.ssh import SSHHost
from blocks.vaults.vault import NAME, PUBLIC, KeyVault, SecretMissing, VaultLocked

_LOCKED = {
    "age": r"age-encryption\.org/|-----BEGIN AGE ENCRYPTED",
    "GnuPG": r"-----BEGIN PGP MESSAGE",
    "OpenSSL": r"Salted__|U2FsdGVkX1|-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED",
    "Ansible Vault": r"\$ANSIBLE_VAULT",
    "SOPS": r'.*ENC\[AES256_GCM|.*"sops":',
    "HashiCorp Vault": r"vault:v[0-9]+:",
    "a hardware token": r"AGE-PLUGIN-",
}
"""What locks files -> how one of the first lines of such a file begins."""
_LOCKED_BY = """
file=$1
shift
grep -q "^AGE-SECRET-KEY-1" "$file" && exit
while [ $# -gt 0 ]; do
    if head -c 4096 "$file" | tr -d "\\000" | grep -aqE "^($2)"; then
        echo "$1"
        exit
    fi
    shift 2
done
"""


class HostVault(KeyVault):
    """A directory on a host, one file a secret.

    What cannot be a secret's name (`.hidden`, `a b`) is not one.
    """

    _block_type_name: ClassVar[str | None] = "farside host vault"
    _block_type_slug: ClassVar[str | None] = "farside-host-vault"
    _description: ClassVar[str | None] = "Secrets as files in a directory of a host."

    kind: Literal["host"] = Field(
        default="host", description="host: secrets are files on a host, one file each."
    )
    host: AnyHost = Field(
        description="The host that holds the files. It may be one of the domain's hosts, but "
        "should not be one on which a service is restored."
    )
    directory: Directory = Field(
        description="Absolute path of the directory of the files (mode 0700, files 0600). The "
        "name of a file is the name of its secret."
    )
    read_argv: list[str] = Field(
        default=[],
        description="Command on the host that prints the secret whose file is appended to it, for "
        "a vault that must be unlocked, as in [age, -d, -i, /root/unlock]. Without it, the files "
        "themselves are read.",
    )

    @property
    @override
    def machine(self) -> Host:
        return self.host

    @property
    @override
    def folder_here(self) -> Path | None:
        return None if isinstance(self.host, SSHHost) else Path(self.directory)

    def join(self, domain: str) -> None:
        """See DomainPart."""
        super().join(domain)
        self.host.join(domain)

    def read(self, name: str) -> SecretStr:
        """See KeyVault."""
        if not NAME.fullmatch(name):
            raise self._missing(name)
        self.note("key", name)
        path = f"{self.directory}/{name}"
        try:
            locked = self.read_argv and not name.endswith(PUBLIC)
            data = self._unlocked(name, path) if locked else self.host.get(path)
        except FileMissing as error:
            raise self._missing(name) from error
        try:
            return SecretStr(data.decode().rstrip("\r\n"))
        except UnicodeDecodeError:
            # Without its cause: that one's text holds a part of the secret.
            raise PermanentError(
                f"the secret {name} is not text",
                operation="key fetch",
                domain=self.domain,
                host=self.host.name,
            ) from None

    def locked(self, name: str) -> str:
        """See KeyVault. With a command that unlocks them, secrets may well be locked."""
        if self.read_argv or name not in self.names():
            return ""
        known = [word for item in _LOCKED.items() for word in item]
        argv = ["sh", "-c", _LOCKED_BY, "sh", f"{self.directory}/{name}", *known]
        return self.host.run(argv).text.strip()

    def is_on(self, host: Host) -> bool:
        """Whether a host is the one with the files, entered by the account that reads them."""
        return _entered(host) == _entered(self.host)

    def runs_as(self, process: str) -> bool:
        """See KeyVault."""
        return bool(self.read_argv) and f"{self.directory}/" in process

    def _unlocked(self, name: str, path: str) -> bytes:
        if name not in self.names():
            raise self._missing(name)
        try:
            return self.host.run([*self.read_argv, path], secret=True).stdout
        except (CommandFailed, CommandTimeout) as error:
            raise VaultLocked(
                f"{name} could not be unlocked: {error.message}",
                operation="key fetch",
                domain=self.domain,
                host=self.host.name,
                hint="what unlocks this vault must be in its own domain: run read_argv by hand "
                "on the vault's host with the source out of reach",
                subject=name,
            ) from None

    def names(self) -> list[str]:
        """See KeyVault."""
        # The path with a slash at its end: a link to the directory is followed.
        listing = self.host.run(["ls", "-1", f"{self.directory}/"]).text.splitlines()
        return sorted(name for name in listing if NAME.fullmatch(name))

    def exposed(self) -> dict[str, str]:
        """See KeyVault: files that others may read or write, in a directory that they may change.

        A public half may be read by all, but written by its owner only.
        """
        script = (
            'cd "$1" || exit 1; me=$(id -u); stat -L -c "%u %a %n" . ./* | while read -r owner mode'
            ' name; do case $owner in 0|"$me") ;; *) printf "%s owner %s\\n" "$name" "$owner";;'
            " esac;"
            ' printf "%s mode %s\\n" "$name" "$mode"; done'
        )
        found: dict[str, str] = {}
        for line in self.host.run(["sh", "-c", script, "sh", self.directory]).text.splitlines():
            path, kind, value = line.rsplit(" ", 2)
            name = path.removeprefix("./")
            if name != "." and not NAME.fullmatch(name):
                continue
            if kind == "owner":
                found[name] = f"it belongs to the account with id {value}"
            elif int(value, 8) & _too_open(name):
                found[name] = f"its mode is {value}"
        return {"the directory" if name == "." else name: text for name, text in found.items()}

    def credentials(self) -> set[str]:
        """See DomainPart."""
        return self.host.credentials()

    def close(self) -> None:
        """See KeyVault."""
        self.host.close()

    def _missing(self, name: str) -> SecretMissing:
        return SecretMissing(
            f"no secret {name!r} in {self.directory}",
            operation="key fetch",
            domain=self.domain,
            host=self.host.name,
            hint="put it there, or correct its name in the plan",
            subject=name,
        )


def _entered(host: Host) -> tuple[str, int, str]:
    """What tells a machine and the account there, whatever a plan calls it."""
    return (host.address, host.port, host.user) if isinstance(host, SSHHost) else ("", 0, "")


def _too_open(name: str) -> int:
    """The bits of a mode that give others what they must not have."""
    return 0o022 if name == "." or name.endswith(PUBLIC) else 0o027
