"""Certificate authorities of the lab, by trustme, and what they issue."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=3650)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority; its certificate as PEM is `pem`."""

    trustme: trustme.CA

    @property
    def pem(self) -> str:
        """The certificate, as PEM."""
        return self.trustme.cert_pem.bytes().decode()

    def issue(self, name: str, *addresses: str) -> Issued:
        """A certificate for a server, which is a client of others as well."""
        leaf = self.trustme.issue_cert(name, *addresses, common_name=name)
        (certificate,) = leaf.cert_chain_pems
        return Issued(certificate.bytes().decode(), leaf.private_key_pem.bytes().decode())


def authority(name: str | x509.Name, key: ec.EllipticCurvePrivateKey | None = None) -> Authority:
    """An authority of a common name, or of a whole one; with a new key, or with this one.

    trustme makes authorities too, but with no common name, by which findings call them, and with
    no key but a new one.
    """
    if isinstance(name, str):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Authority(trustme.CA.from_pem(pem, private))
