"""How a text reads that was packed, and which of its lines are comments."""

import base64
import gzip
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from blocks import readings
from blocks.agent import origins

TEXT = b"url: https://db1.east.example/\n"


def test_what_was_packed_is_read() -> None:
    assert readings.unpacked(gzip.compress(TEXT)) == TEXT
    assert readings.unpacked(gzip.compress(TEXT * 10)[:-12]).startswith(TEXT)
    assert readings.unpacked(b"\x1f\x8bno") == b"\x1f\x8bno"
    helm = base64.b64encode(base64.b64encode(gzip.compress(TEXT))).decode()
    assert any("db1.east.example" in text for text in readings.of(helm))


def test_a_certificate_is_read_as_the_urls_in_it() -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    long = f"http://ocsp.east.example/{'x' * 120}"
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(datetime(2026, 1, 1))
        .not_valid_after(datetime(2027, 1, 1))
        .add_extension(
            x509.CRLDistributionPoints(
                [x509.DistributionPoint([_url("http://pki.east.example/ca.crl")], None, None, None)]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityInformationAccess(
                [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, _url(long))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    urls = f"http://pki.east.example/ca.crl {long}"
    pem = made.public_bytes(Encoding.PEM).decode()
    text = f"# of db1\n{pem}bundle: db2.east.example\n"
    end = text.count("\n")
    assert list(readings.lines(text)) == [
        (1, "# of db1"),
        (2, urls),
        (end - 1, "-----END CERTIFICATE-----"),
        (end, "bundle: db2.east.example"),
    ]
    assert (2, urls) in readings.lines(text[: text.index("-----END")])
    assert origins.decoded(made.public_bytes(Encoding.DER)) == urls


def _url(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def test_a_variable_among_arguments() -> None:
    text = "DECLARE site text := 'east';\nRETURN format('https://pim.%s.example', site);"
    *_, (number, line) = readings.lines(text)
    assert (number, readings.of(line)[-1]) == (2, "RETURN 'https://pim.east.example';")


def test_binary_values_that_were_compressed() -> None:
    row = f'(7,"\\\\x{gzip.compress(TEXT).hex()}")'
    assert "db1.east.example" in readings.of(row)[-1]


def test_comments() -> None:
    text = "#!/bin/sh\n# was: x\n  -- moved\n#include <x>\n--flag\nx # y\n"
    assert readings.comments(text) == {2, 3}
