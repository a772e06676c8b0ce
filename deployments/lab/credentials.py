"""Where credentials are. What one domain accepts, the other one does not know."""

from dataclasses import dataclass
from pathlib import Path

from deployments.lab.accounts import Account
from deployments.lab.places import Places, write
from deployments.lab.site import Host, Site

BUCKET = "farside"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Pins:
    """Public keys that the plan pins: nothing here is secret."""

    recipients: dict[str, str]
    signer: str
    record_signer: str
    host_keys: dict[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Vaults:
    """Both domains' vaults and hosts, while a lab's credentials are made."""

    places: Places
    account: Account

    def keep(self, domain: str, name: str, value: str) -> None:
        """Put a secret into a domain's vault."""
        self.write(self.places.secrets(domain) / name, value)

    def write(self, path: Path, text: str) -> None:
        """Write a file that the services' account alone can read."""
        write(path, text)
        self.account.own(path)


def pins(places: Places, sites: tuple[Site, Site]) -> Pins:
    """Read the public keys back; east's tree may be unreadable by then."""
    return Pins(
        recipients={
            site.name: (places.operator(site.name) / "recipient.pub").read_text() for site in sites
        },
        signer=(places.operator("east") / "signer.pub").read_text(),
        record_signer=(places.operator("west") / "record_signer.pub").read_text(),
        host_keys={
            (site.name, host.name): host_key_pin(places, site, host).read_text()
            for site in sites
            for host in site.domain.hosts
        },
    )


def secret(places: Places, domain: str, name: str) -> str:
    """A secret of a domain's vault."""
    return (places.secrets(domain) / name).read_text()


def store_key(places: Places, domain: str) -> tuple[str, str]:
    """Access key and secret key of a domain's store."""
    lines = (places.operator(domain) / "s3.ini").read_text().splitlines()
    values = dict(line.split(" = ", 1) for line in lines if " = " in line)
    return values["aws_access_key_id"], values["aws_secret_access_key"]


def ssh_files(places: Places, site: Site, host: Host) -> tuple[Path, Path]:
    """A host's private key, and the keys that it lets in."""
    directory = places.host(site.name, host.name) / "ssh"
    return directory / "host_key", directory / "authorized_keys"


def certificate_files(places: Places, site: Site) -> tuple[Path, Path]:
    """Certificate (with the CA's behind it) and key of a domain's store."""
    directory = places.tree(site.name) / "tls"
    return directory / "store.pem", directory / "store.key"


def member_files(places: Places, domain: str, host: str) -> tuple[Path, Path]:
    """Certificate and key of a cluster's member, on its host."""
    directory = places.host(domain, host) / "tls"
    return directory / "member.pem", directory / "member.key"


def authority_file(places: Places, domain: str) -> Path:
    """The certificate of a domain's authority, as the domain's own services know it."""
    return places.tree(domain) / "tls" / "ca.pem"


def host_key_pin(places: Places, site: Site, host: Host) -> Path:
    """The public part of a host's key, as the orchestrator pins it."""
    return places.operator(site.name) / f"{host.name}.host_key.pub"
