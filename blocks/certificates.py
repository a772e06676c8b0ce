"""Whose authority issued the certificates that a rehearsal meets, and what these refer to."""

import socket
import ssl
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from blocks.ownership import Belongings
from blocks.stores.store import ObjectStore

_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issued a certificate: by name, and by its key where that is known."""

    name: x509.Name
    key: bytes | None

    def __str__(self) -> str:
        common = self.name.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(common[0].value) if common else self.name.rfc4514_string()
        return f"{text} (key {self.key.hex()[:16]})" if self.key else text

    def is_among(self, others: "Iterable[Authority]") -> bool:
        """Whether it is one of others, by its key, whatever it is called."""
        return self.key is not None and any(self.key == other.key for other in others)

    def may_be_among(self, others: "Iterable[Authority]") -> bool:
        """Whether it has the name of one of others, and of these two not both keys are known."""
        return any(self.name == other.name and None in (self.key, other.key) for other in others)


def parsed(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a file, PEM or DER. Raises ValueError where there is none."""
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        return (x509.load_der_x509_certificate(data),)


def trusted(bundle: Iterable[x509.Certificate]) -> frozenset[Authority]:
    """The authorities in a file that says which are trusted."""
    found = set[Authority]()
    for item in bundle:
        with suppress(Exception):  # a kind of key, or a name, that is not known here
            found.add(Authority(item.subject, _key(item)))
    return frozenset(found)


def chained(
    shown: Sequence[x509.Certificate], pinned: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Certificates, leaf first, and the pinned authorities that issued them."""
    chain = list(shown)
    for certificate in pinned:
        if certificate not in chain and any(_issued_by(item, certificate) for item in chain):
            chain.append(certificate)
    return tuple(chain)


def met(store: ObjectStore) -> tuple[x509.Certificate, ...]:
    """The certificates that a store shows and the pinned ones that issued them, leaf first.

    Empty where the store does not answer, or is not trusted: that is found elsewhere.
    """
    host, port = store.endpoints()[0]
    try:
        context = ssl.create_default_context(cadata=store.ca_pem)
        with (
            socket.create_connection((host, port), _PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname=host) as tls,
        ):
            shown = _shown(tls)
    except OSError:
        return ()
    return chained(shown, pinned(store))


def is_public(chain: Sequence[x509.Certificate]) -> bool:
    """Whether a chain leads to one of the authorities that browsers trust, which outlast a site."""
    public = _public()
    # A server sends no root along: of the last authority only the name is known.
    return any(
        item.is_among(public) or (item.key is None and item.may_be_among(public))
        for item in authorities(chain)
    )


@cache
def _public() -> frozenset[Authority]:
    roots = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    found = list[x509.Certificate]()
    with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
        for root in roots:
            with suppress(ValueError):  # old ones break rules of today
                found.append(x509.load_der_x509_certificate(root))
    return trusted(found)


def authorities(chain: Sequence[x509.Certificate]) -> frozenset[Authority]:
    """All that issued a certificate of a chain."""
    return frozenset(_issuer(item, chain) for item in chain)


def references(chain: Sequence[x509.Certificate], foreign: Belongings) -> Iterator[tuple[str, str]]:
    """What in a chain names another domain: issuer or URLs of CRL, OCSP and issuer; and what."""
    for item in chain:
        texts = {"its issuer's name": item.issuer.rfc4514_string().replace("=", " = ")}
        for extension in item.extensions:
            match extension.value:
                case x509.CRLDistributionPoints():
                    texts["where its CRL is"] = " ".join(_urls(extension.value))
                case x509.AuthorityInformationAccess():
                    texts["where OCSP or its issuer is"] = " ".join(
                        str(access.access_location.value) for access in extension.value
                    )
        for what, text in texts.items():
            for found in dict.fromkeys((*foreign.places_in(text), *foreign.hosts_of(text))):
                yield what, found


def _urls(points: x509.CRLDistributionPoints) -> Iterator[str]:
    for point in points:
        yield from (str(name.value) for name in point.full_name or ())


def pinned(store: ObjectStore) -> list[x509.Certificate]:
    """The authorities that a plan has a store trusted by; empty for those of the machine."""
    pem = store.ca_pem
    try:
        return x509.load_pem_x509_certificates(pem.encode()) if pem else []
    except ValueError:
        return []


def _shown(tls: ssl.SSLSocket) -> list[x509.Certificate]:
    """All that the server sends; the leaf alone where Python cannot tell."""
    chain = getattr(tls, "get_unverified_chain", None) or getattr(
        getattr(tls, "_sslobj", None), "get_unverified_chain", None
    )
    leaf = tls.getpeercert(binary_form=True) or b""
    shown = [] if chain is None else list(chain() or ())
    ders = [item if isinstance(item, bytes) else _der(item) for item in shown]
    return [x509.load_der_x509_certificate(der) for der in ders or [leaf]]


def _der(certificate: object) -> bytes:
    """Of what Python before 3.13 gives for a certificate of the chain."""
    public_bytes = certificate.public_bytes  # type: ignore[attr-defined]
    pem: str = public_bytes()
    return ssl.PEM_cert_to_DER_cert(pem)


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    if certificate.issuer != authority.subject:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 (another key of the same name, or an algorithm that is not known here)
        return False
    return True


def _issuer(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> Authority:
    for other in chain:
        if _issued_by(certificate, other):
            return Authority(certificate.issuer, _key(other))
    return Authority(certificate.issuer, None)


def _key(certificate: x509.Certificate) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return digest.finalize()
