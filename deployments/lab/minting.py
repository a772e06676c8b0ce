"""Makes keys, certificates and secrets, all of them new for each lab."""

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blocks.artifact.age import generate_identity, recipient_of
from blocks.artifact.signing import generate_signing_key, public_key_of
from deployments.lab.accounts import Account
from deployments.lab.credentials import (
    authority_file,
    certificate_files,
    etcd_password_file,
    galera_login_file,
    host_key_pin,
    member_files,
    password_file,
    ssh_files,
)
from deployments.lab.domains import Site
from deployments.lab.places import Places, write

_VALID = timedelta(days=3650)


def create(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    """Make all credentials of both domains."""
    shop, notes_key = secrets.token_urlsafe(18), Fernet.generate_key().decode()
    east, west = sites
    for site in sites:
        places.operator(site.name).mkdir(parents=True)
        _create_ssh_keys(places, site, account)
        _create_certificates(places, site, account)
        _create_store_key(places, site)
        identity = generate_identity()
        _store_secret(places, site, account, "farside-age-identity", identity)
        # Its public half beside it: who is sealed to can be told without reading the key.
        _store_secret(places, site, account, "farside-age-identity.pub", recipient_of(identity))
        _store_secret(places, site, account, "shop-notes-key", notes_key)
    signing_key = generate_signing_key()
    _store_secret(places, east, account, "farside-signing-key", signing_key)
    _store_secret(places, east, account, "postgres-password", secrets.token_urlsafe(18))
    _store_secret(places, east, account, "replication-password", secrets.token_urlsafe(18))
    _store_secret(places, west, account, "shop-password", shop)
    record_key = generate_signing_key()
    _store_secret(places, west, account, "record-signing-key", record_key)
    root, writer = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    for site in sites:
        _store_secret(places, site, account, "etcd-root-password", root)
    _store_secret(places, west, account, "etcd-shop-password", writer)
    write(etcd_password_file(places, east.name), writer)
    account.own(etcd_password_file(places, east.name))
    client = secrets.token_hex(18)
    _store_secret(places, east, account, "galera-backup-password", secrets.token_hex(18))
    _store_secret(places, west, account, "galera-shop-password", client)
    write(galera_login_file(places, east.name), f"[client]\nuser=shop\npassword={client}\n")
    account.own(galera_login_file(places, east.name))
    passwords = password_file(places, east.name)
    write(passwords, f"*:*:*:shop:{shop}\n")
    account.own(passwords)
    write(places.operator(east.name) / "signer.pub", public_key_of(signing_key))
    write(places.operator(west.name) / "record_signer.pub", public_key_of(record_key))
    for site in sites:
        identity = (places.secrets(site.name) / "farside-age-identity").read_text()
        write(places.operator(site.name) / "recipient.pub", recipient_of(identity))


def _store_secret(places: Places, site: Site, account: Account, name: str, value: str) -> None:
    path = places.secrets(site.name) / name
    write(path, value)
    account.own(path)


def _create_ssh_keys(places: Places, site: Site, account: Account) -> None:
    client, client_public = _ssh_key(f"farside@{site.name}.lab")
    write(places.operator(site.name) / "id_ed25519", client)
    for host in site.domain.hosts:
        key, public = _ssh_key(f"{host.name}.{site.name}.lab")
        key_file, authorized = ssh_files(places, site, host)
        key_file.parent.mkdir(mode=0o700)
        account.own(key_file.parent)
        for path, text in ((key_file, key), (authorized, client_public + "\n")):
            write(path, text)
            account.own(path)
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


def certificate_authority(name: str) -> str:
    """The certificate of an authority that has signed nothing, as PEM."""
    ca = _authority(f"{name} CA", ec.generate_private_key(ec.SECP256R1()))
    return ca.public_bytes(serialization.Encoding.PEM).decode()


def issue_from_one(
    name: str, servers: Sequence[tuple[str, str]]
) -> tuple[str, list[tuple[str, str]]]:
    """A new authority as PEM, and of each server (name, address) certificate and key from it."""
    authority = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(f"{name} CA", authority)
    pem = serialization.Encoding.PEM
    issued = []
    for host, address in servers:
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [ipaddress.ip_address(address)]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        leaf = _issued(ca, authority, key, host, addresses, usage)
        issued.append((leaf.public_bytes(pem).decode(), _pem(key)))
    return ca.public_bytes(pem).decode(), issued


def _authority(text: str, authority: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    return (
        _certificate(name, name, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False, issue=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False
        )
        .sign(authority, hashes.SHA256())
    )


def _create_certificates(places: Places, site: Site, account: Account) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(f"{site.name}.lab CA", authority)
    key = ec.generate_private_key(ec.SECP256R1())
    host = f"{site.domain.store.name}.{site.name}.lab"
    address = ipaddress.ip_address(site.store[0])
    leaf = _issued(ca, authority, key, host, [address], ExtendedKeyUsageOID.SERVER_AUTH)
    ca_pem = ca.public_bytes(serialization.Encoding.PEM).decode()
    certificate, key_file = certificate_files(places, site)
    certificate.parent.mkdir(mode=0o700)
    account.own(certificate.parent)
    write(certificate, leaf.public_bytes(serialization.Encoding.PEM).decode() + ca_pem)
    write(key_file, _pem(key))
    write(authority_file(places, site.name), ca_pem)
    for path in (certificate, key_file, authority_file(places, site.name)):
        account.own(path)
    for name in (host.name for host in site.domain.hosts if host.part):
        _create_member(places, site, account, ca, authority, name)
    # The CA's key is not kept: nothing else is ever signed with it.
    write(places.operator(site.name) / "ca.pem", ca_pem)


def _create_member(
    places: Places,
    site: Site,
    account: Account,
    ca: x509.Certificate,
    authority: ec.EllipticCurvePrivateKey,
    name: str,
) -> None:
    """The certificate of a cluster's member, which is a server, and a client of the others."""
    key = ec.generate_private_key(ec.SECP256R1())
    # On loopback a member's calls come from 127.0.0.1, and etcd compares with the certificate.
    addresses = [ipaddress.ip_address(text) for text in (site.address(name), "127.0.0.1")]
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    host = f"{name}.{site.name}.lab"
    leaf = _issued(ca, authority, key, host, addresses, *both)
    pem = serialization.Encoding.PEM
    texts = (leaf.public_bytes(pem).decode(), _pem(key))
    files = member_files(places, site.name, name)
    files[0].parent.mkdir(mode=0o700)
    account.own(files[0].parent)
    for path, text in zip(files, texts, strict=True):
        write(path, text)
        account.own(path)


def _issued(
    ca: x509.Certificate,
    authority: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    host: str,
    addresses: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address],
    *usages: x509.ObjectIdentifier,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    return (
        _certificate(name, ca.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True, issue=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(host), *(x509.IPAddress(item) for item in addresses)]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
        .sign(authority, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
    )


def _usage(*, sign: bool, issue: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issue,
        crl_sign=issue,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
