"""Whose authority issued the certificates of the recovery side: its store's and its members'."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from blocks import certificates
from blocks.certificates import Authority
from blocks.domain import FailureDomain
from blocks.errors import FarsideError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from tasks.context import Rehearsal
from tasks.inspect import ownership
from tasks.inspect.inspection import STAGE, Inspection

_FILE_BYTES = 2**20
"""More than all public authorities together take."""


@dataclass(frozen=True, slots=True)
class _Issued:
    """What a host has, by the plan: certificates, by their files, and the authorities it trusts."""

    host: str
    shown: dict[str, tuple[x509.Certificate, ...]]
    pinned: tuple[x509.Certificate, ...]

    def chains(self) -> Iterator[tuple[str, tuple[x509.Certificate, ...]]]:
        """Each file of certificates, and these with the authorities that issued them."""
        for path, shown in self.shown.items():
            yield path, certificates.chained(shown, self.pinned)


def issuers(rehearsal: Rehearsal, into: Inspection) -> Iterator[Finding]:
    """Who issued the certificates of the recovery domain, and whose authority that is.

    What cannot be told goes to `into.unseen`.
    """
    source, recovery = rehearsal.source, rehearsal.recovery
    chain, where = certificates.met(recovery.store), f"{recovery.name} store"
    for what, found in dict.fromkeys(certificates.references(chain, source.belongings)):
        yield finding(FindingId.CA_IN_SOURCE, where, f"{what} names {found}", STAGE)
    shown = [] if recovery.store.ca_pem is None else [(where, chain)]
    engine = rehearsal.plan.engine
    for item in _issued(recovery, engine.model_dump(mode="json", exclude={"source"}), into):
        shown += [(f"{recovery.name}/{item.host} {path}", made) for path, made in item.chains()]
    if not shown:
        return
    own, perhaps = _of_source(rehearsal, into, members=any(place != where for place, _ in shown))
    for place, chain in shown:
        if certificates.is_public(chain):
            continue  # lost with neither
        for authority in sorted(certificates.authorities(chain), key=str):
            if authority.is_among(own):
                text = f"{authority} issued the certificates of both {source.name} and"
                yield finding(FindingId.CA_IN_SOURCE, place, f"{text} {recovery.name}", STAGE)
            elif authority.is_among(perhaps):
                text = f"whether {authority}, which issued that of {place}, issues those of"
                into.unseen.append(f"{text} {source.name}, too: both are trusted there")
            elif authority.may_be_among(own | perhaps):
                text = f"whether {authority}, which issued that of {place}, is the one that"
                into.unseen.append(f"{text} {source.name} has under this name: by their keys")


def _of_source(
    rehearsal: Rehearsal, into: Inspection, *, members: bool
) -> tuple[set[Authority], set[Authority]]:
    """Authorities that issue the source's certificates, and those of which some may.

    `members` says whether the recovery side has certificates besides its store's.
    """
    source = rehearsal.source
    own, perhaps = set(certificates.authorities(certificates.met(source.store))), set[Authority]()
    if not own:  # it does not answer: what it is trusted by tells as much, if that is one
        trusted = certificates.trusted(certificates.pinned(source.store))
        (own if len(trusted) == 1 else perhaps).update(trusted)
        if rehearsal.fresh and rehearsal.recovery.store.ca_pem is not None:
            into.unseen.append(f"who issued the certificate of {source.name}'s store: none was met")
    text = f"whether other certificates of {source.name} and {rehearsal.recovery.name} have one"
    if not rehearsal.fresh:  # a source that may be lost is not asked for files
        if members:
            into.unseen.append(f"{text} authority: the files of {source.name} were not read")
        return own, perhaps
    document = rehearsal.plan.engine.model_dump(mode="json", include={"source"})
    if members and not any(ownership.issued(document)):
        into.unseen.append(f"{text} authority: the plan names no file of {source.name}'s")
    for item in _issued(source, document, into):
        for _, chain in item.chains():
            own |= certificates.authorities(chain)
        trusted = certificates.trusted(item.pinned)
        # One that is trusted alone has issued all; of several, each may be another's.
        (own if len(trusted) == 1 else perhaps).update(trusted)
    return own, perhaps


def _issued(domain: FailureDomain, document: dict[str, Any], into: Inspection) -> Iterator[_Issued]:
    files = list(dict.fromkeys(ownership.issued(document)))
    for host in dict.fromkeys(name for name, _, _ in files):
        shown, pinned = dict[str, tuple[x509.Certificate, ...]](), list[x509.Certificate]()
        for field, path in ((field, path) for name, field, path in files if name == host):
            what = f"who issued the certificates in {path} on {domain.name}/{host}"
            try:
                found = certificates.parsed(domain.host(host).get(path, _FILE_BYTES))
            except ValueError:
                into.unseen.append(f"{what}: there is none that can be read")
            except TransientError as error:
                into.unseen.append(f"{what}: {error.message}")
                break  # nor would it answer for the next file
            except FarsideError as error:
                into.unseen.append(f"{what}: {error.message}")
            else:
                if field.endswith("ca_file"):
                    pinned += found
                else:
                    shown[path] = found
        yield _Issued(host, shown, tuple(pinned))
