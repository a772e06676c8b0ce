"""Whose authority issued the certificates of the members that are restored."""

import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from blocks.domain import FailureDomain
from blocks.errors import TransientError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding
from blocks.hosts.local import LocalHost
from blocks.stores.s3 import S3Store
from deployments.lab.certificates import authority
from tasks.inspect.inspection import Inspection
from tasks.inspect.issuers import issuers

Look = Callable[..., tuple[list[Finding], list[str]]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Looks at a plan in which each domain's one host has files of these certificates."""

    def domain(name: str) -> FailureDomain:
        host = LocalHost(name=f"{name}1")
        store = S3Store(endpoint=f"https://127.0.0.1:{1 if name == 'east' else 2}", bucket="b")
        return FailureDomain(name=name, hosts=[host], store=store)

    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    def found(
        west: tuple[str, str], east: tuple[str, str] | None, *, fresh: bool = True
    ) -> tuple[list[Finding], list[str]]:
        member = {"host": "west1", "cert_file": file("db1.pem", west[0])}
        target = {"members": [member], "ca_file": file("west-ca.pem", west[1])}
        source = {"host": "east1"}
        if east is not None:
            cert = file("farside.pem", east[0]) if east[0] else ""
            source |= {"cert_file": cert, "ca_file": file("east-ca.pem", east[1])}

        def dump(*, mode: str, include: Any = (), exclude: Any = ()) -> dict[str, Any]:
            assert mode == "json"
            assert include == {"source"} or exclude == {"source"}
            return {"source": source} if include else {"target": target}

        plan = SimpleNamespace(engine=SimpleNamespace(model_dump=dump))
        made: Any = SimpleNamespace(plan=plan, fresh=fresh)
        made.source, made.recovery = domain("east"), domain("west")
        seen = Inspection()
        return list(issuers(made, seen)), seen.unseen

    return found


_ONE, _OTHER = authority("one CA"), authority("other CA")
ONE, OTHER = _ONE.pem, _OTHER.pem
LEAF, CLIENT = (_ONE.issue(name).certificate for name in ("a.x", "b.x"))
OTHERS = _OTHER.issue("c.x").certificate


@pytest.mark.parametrize("shows", [False, True])
def test_members_whose_authority_is_the_sources(look: Look, tmp_path: Path, shows: bool) -> None:
    (item,), unseen = look((LEAF, ONE), (CLIENT if shows else "", ONE))
    assert (item.id, item.subject) == ("ca-in-source", f"west/west1 {tmp_path}/db1.pem")
    assert item.severity is Severity.HIGH
    assert item.evidence.startswith("one CA (key ")
    assert unseen == []


def test_members_with_an_authority_of_their_own(look: Look) -> None:
    assert look((OTHERS, OTHER), (CLIENT, ONE)) == ([], [])
    # That the recovery side trusts the source's as well is no matter of who issues.
    assert look((OTHERS, OTHER + ONE), (CLIENT, ONE)) == ([], [])


def test_an_authority_by_another_name_whose_key_is_the_sources(look: Look) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    old, renamed = authority("old CA", key), authority("new CA", key)
    (item,), _ = look((renamed.issue("a.x").certificate, renamed.pem), ("", old.pem))
    assert item.evidence.startswith("new CA (key ")


def test_one_of_the_same_name_whose_key_is_not_known_is_unknown(look: Look) -> None:
    """A member that sends its certificate alone, and trusts another authority."""
    found, (text,) = look((LEAF, OTHER), ("", authority("one CA").pem))
    assert found == []
    assert text.startswith("whether one CA, which issued that of west/west1 ")


def test_a_public_authority_is_lost_with_neither(look: Look) -> None:
    roots = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    root = x509.load_der_x509_certificate(roots[-1])
    mimic = authority(root.subject)
    member, named = mimic.issue("a.x").certificate, mimic.pem
    public = root.public_bytes(Encoding.PEM).decode()
    assert look((member, public), (member, public)) == ([], [])
    (item,), _ = look((member, named), (member, named))
    assert item.id == "ca-in-source", "the name alone makes none public"


def test_that_the_source_trusts_several_tells_nothing_of_who_issued_its_own(look: Look) -> None:
    found, (text,) = look((OTHERS, OTHER), ("", ONE + OTHER))
    assert found == []
    assert text.startswith("whether other CA (key ")
    # What farside shows there is of one of them.
    (item,), unseen = look((LEAF, ONE), (CLIENT, ONE + OTHER))
    assert (item.id, unseen) == ("ca-in-source", [])


@pytest.mark.parametrize("text", ["", "no certificate", "x" * 2**21])
def test_a_file_that_is_none_is_unknown(look: Look, text: str) -> None:
    for west, east in (((text, ONE), ("", OTHER)), ((LEAF, ONE), ("", text))):
        found, unseen = look(west, east)
        assert found == []
        assert unseen[0].startswith("who issued the certificates in /")


def test_a_host_that_does_not_answer_is_asked_once(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Any, path: str, most: int) -> bytes:
        raise TransientError(f"{path}: gone, {most}")

    monkeypatch.setattr(LocalHost, "get", away)
    found, unseen = look((LEAF, ONE), (CLIENT, ONE))
    assert found == []
    assert [text.partition(" on ")[2].partition(":")[0] for text in unseen] == ["west/west1"]


def test_what_of_the_source_is_not_known_is_said(look: Look) -> None:
    for east, fresh, why in (
        (("", ONE), False, "the files of east were not read"),
        (None, True, "the plan names no file of east's"),
    ):
        found, (text,) = look((LEAF, ONE), east, fresh=fresh)
        assert found == []
        assert text.endswith(why)
