"""Drills of keys and secrets."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address

from blocks.artifact.age import generate_identity
from blocks.artifact.age.keys import recipient_of
from deployments.lab.certificates import authority
from deployments.lab.credentials import certificate_files
from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import OLDER, Ground

IDENTITY = "farside-age-identity"


@drill("key-only-in-source", "preflight")
def key_only_in_source(ground: Ground) -> Iterator[None]:
    """The age identity is not in west's vault."""
    with ground.secret(IDENTITY, None), ground.secret(f"{IDENTITY}.pub", None):
        yield


@drill("sealed-to-source-only", "preflight", select="fresh")
def sealed_to_source_only(ground: Ground) -> Iterator[None]:
    """The plan seals to east's recipient alone."""
    keys = ground.document["keys"]
    keys["recipients"] = keys["recipients"][:1]
    yield


@drill("key-stale", "key fetch")
def key_stale(ground: Ground) -> Iterator[None]:
    """Another identity lies in west's vault under the name of the right one."""
    with ground.secret(IDENTITY, generate_identity()):
        yield


@drill("secret-exposed", "preflight")
def secret_exposed(ground: Ground) -> Iterator[None]:
    """Every account of west's vault host may read the identity."""
    path = ground.places.secrets("west") / IDENTITY
    path.chmod(0o644)
    try:
        yield
    finally:
        path.chmod(0o600)


@drill("key-rotated-away", "preflight")
def key_rotated_away(ground: Ground) -> Iterator[None]:
    """A retained set is sealed to an identity that west's vault has no more."""
    gone = (recipient_of(generate_identity()),)
    with ground.another_set("west", OLDER, lambda m: replace(m, set_id=OLDER, recipients=gone)):
        yield


@drill("key-chain-in-source", "verify")
def key_chain_in_source(ground: Ground) -> Iterator[None]:
    """West's vault asks a host of east before it gives a secret out."""
    address, port = ground.east.ssh["vault"]
    number = int(IPv4Address(address))  # no text that names it, as in a compiled program
    script = (
        "import ipaddress, socket, sys\n"
        "try:\n"
        f"    host = str(ipaddress.ip_address({number}))\n"
        f"    socket.create_connection((host, {port}), 1).recv(1)\n"
        "except OSError:\n"
        "    pass  # it has the answer of last time\n"
        "sys.stdout.write(open(sys.argv[1]).read())\n"
    )
    vault = ground.document["recovery"]["vault"]
    with ground.file(ground.places.host("west", "vault") / "unlock.py", script):
        path = str(ground.places.host("west", "vault") / "unlock.py")
        vault["read_argv"] = [vault["host"]["python"], path]
        yield


@drill("app-secret-missing", "verify")
def app_secret_missing(ground: Ground) -> Iterator[None]:
    """West's vault holds another key than the application encrypts with."""
    from cryptography.fernet import Fernet

    with ground.secret("shop-notes-key", Fernet.generate_key().decode()):
        yield


@drill("login-missing", "verify")
def login_missing(ground: Ground) -> Iterator[None]:
    """West's vault holds an old password of the application."""
    with ground.secret(ground.document["engine"]["application"]["password"], "last-year"):
        yield


@drill("ca-unknown", "preflight")
def ca_unknown(ground: Ground) -> Iterator[None]:
    """The recovery side trusts another authority than the one of west's store."""
    path = ground.folder / "other-ca.pem"
    path.write_text(authority("other CA").pem)
    ground.document["recovery"]["store"]["ca_file"] = str(path)
    yield


@drill("ssh-trust-missing", "preflight")
def ssh_trust_missing(ground: Ground) -> Iterator[None]:
    """The plan pins another host key than a host of west has."""
    hosts = ground.document["recovery"]["hosts"]
    hosts[0]["host_key"] = hosts[1]["host_key"]
    yield


@drill("credential-refused", "preflight")
def credential_refused(ground: Ground) -> Iterator[None]:
    """West's store knows another secret for the access key."""
    path = ground.folder / "s3.ini"
    path.write_text((ground.places.operator("west") / "s3.ini").read_text().rstrip() + "x\n")
    ground.document["recovery"]["store"]["credentials_file"] = str(path)
    yield


@drill("credential-from-source", "preflight")
def credential_from_source(ground: Ground) -> Iterator[None]:
    """A host of west is entered with east's SSH key."""
    host = ground.home("west", 1) / "ssh" / "authorized_keys"
    key = ground.home("east", 1) / "ssh" / "authorized_keys"
    with ground.file(host, host.read_text() + key.read_text()):
        east = ground.places.operator("east") / "id_ed25519"
        ground.document["recovery"]["hosts"][1]["identity_file"] = str(east)
        yield


@drill("ca-in-source", "preflight")
def ca_in_source(ground: Ground) -> Iterator[None]:
    """One authority has issued the certificates of both domains' stores."""
    with ExitStack() as stack:
        sites = {"source": ground.east, "recovery": ground.west}
        shared = authority("shared CA")
        path = ground.folder / "shared-ca.pem"
        path.write_text(shared.pem)
        for part, site in sites.items():
            leaf = shared.issue(f"{site.domain.store.name}.{site.name}.lab", site.store[0])
            certificate, key = certificate_files(ground.places, site)
            stack.enter_context(ground.file(certificate, leaf.certificate + shared.pem))
            stack.enter_context(ground.file(key, leaf.key))
            ground.document[part]["store"]["ca_file"] = str(path)
        restart = [f"{site.name}-store" for site in sites.values()]
        for name in restart:
            with ground.without(name):
                pass
        try:
            yield
        finally:
            stack.close()
            for name in restart:
                with ground.without(name):
                    pass
