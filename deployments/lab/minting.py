"""Makes keys, certificates and secrets, all of them new for each lab."""

import secrets
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from blocks.artifact.age import generate_identity, recipient_of
from blocks.artifact.signing import generate_signing_key, public_key_of
from deployments.lab import parts
from deployments.lab.accounts import Account
from deployments.lab.certificates import authority
from deployments.lab.credentials import (
    Vaults,
    authority_file,
    certificate_files,
    host_key_pin,
    member_files,
    ssh_files,
)
from deployments.lab.places import Places, write
from deployments.lab.site import Site


def create(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    """Make all credentials of both domains."""
    vaults, notes_key = Vaults(places, account), Fernet.generate_key().decode()
    east, west = sites
    for site in sites:
        operator = places.operator(site.name)
        operator.mkdir(parents=True)
        _create_ssh_keys(places, site, vaults)
        _create_certificates(places, site, vaults)
        _create_store_key(places, site)
        identity = generate_identity()
        vaults.keep(site.name, "farside-age-identity", identity)
        # Its public half beside it: who is sealed to can be told without reading the key.
        vaults.keep(site.name, "farside-age-identity.pub", recipient_of(identity))
        write(operator / "recipient.pub", recipient_of(identity))
        vaults.keep(site.name, "shop-notes-key", notes_key)
    signing_key, record_key = generate_signing_key(), generate_signing_key()
    vaults.keep(east.name, "farside-signing-key", signing_key)
    vaults.keep(west.name, "record-signing-key", record_key)
    write(places.operator(east.name) / "signer.pub", public_key_of(signing_key))
    write(places.operator(west.name) / "record_signer.pub", public_key_of(record_key))
    for part in parts.PARTS:
        part.mint(places, vaults)


def _create_ssh_keys(places: Places, site: Site, vaults: Vaults) -> None:
    client, client_public = _ssh_key(f"farside@{site.name}.lab")
    write(places.operator(site.name) / "id_ed25519", client)
    for host in site.domain.hosts:
        key, public = _ssh_key(f"{host.name}.{site.name}.lab")
        key_file, authorized = ssh_files(places, site, host)
        _private(key_file.parent, vaults.account)
        vaults.write(key_file, key)
        vaults.write(authorized, client_public + "\n")
        write(host_key_pin(places, site, host), " ".join(public.split()[:2]))


def _ssh_key(comment: str) -> tuple[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode(), f"{public.decode()} {comment}"


def _create_store_key(places: Places, site: Site) -> None:
    access = f"{site.name.upper()}{secrets.token_hex(8).upper()}"
    write(
        places.operator(site.name) / "s3.ini",
        f"[default]\naws_access_key_id = {access}\n"
        f"aws_secret_access_key = {secrets.token_urlsafe(30)}\n",
    )


def _create_certificates(places: Places, site: Site, vaults: Vaults) -> None:
    # The CA's key is not kept: nothing else is ever signed with it.
    ca = authority(f"{site.name}.lab CA")
    store, key_file = certificate_files(places, site)
    _private(store.parent, vaults.account)
    leaf = ca.issue(f"{site.domain.store.name}.{site.name}.lab", site.store[0])
    vaults.write(store, leaf.certificate + ca.pem)
    vaults.write(key_file, leaf.key)
    vaults.write(authority_file(places, site.name), ca.pem)
    write(places.operator(site.name) / "ca.pem", ca.pem)
    for host in parts.certified(site):
        # On loopback a member's calls come from 127.0.0.1: some compare that with the certificate.
        leaf = ca.issue(f"{host.name}.{site.name}.lab", site.address(host), "127.0.0.1")
        member, key_file = member_files(places, site.name, host.name)
        _private(member.parent, vaults.account)
        vaults.write(member, leaf.certificate)
        vaults.write(key_file, leaf.key)


def _private(directory: Path, account: Account) -> None:
    directory.mkdir(mode=0o700)
    account.own(directory)
