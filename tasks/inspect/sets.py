"""Keys, credentials and backup sets, looked at from the recovery side before anything is lost."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from blocks.artifact.manifest import LogIndex, Manifest, ManifestMalformed, SetHeader
from blocks.artifact.signing import KeyMalformed, key_id, public_key_of
from blocks.domain import FailureDomain
from blocks.engines.checks import listed
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.plan.model import Plan
from blocks.repositories.farside.binding import ForeignSet, KnownState
from blocks.repositories.farside.listing import headers, set_ids
from blocks.repositories.farside.reader import SetReader
from blocks.stores.writes import try_writing
from tasks.context import Rehearsal
from tasks.evidence import places
from tasks.inspect.inspection import STAGE, Inspection


def secrets(rehearsal: Rehearsal, *, of_source: bool) -> Iterator[Finding]:
    """Which secrets the vaults lack, by name; none is read before the declaration."""
    plan = rehearsal.plan
    wanted = [(name, FindingId.KEY_ONLY_IN_SOURCE) for name in _keys(plan)]
    wanted += [(name, FindingId.LOGIN_MISSING) for name in plan.engine.passwords]
    wanted += [(item.secret, FindingId.APP_SECRET_MISSING) for item in plan.secrets]
    yield from _absent(plan.recovery, wanted)
    if of_source and plan.keys.signing_key:
        yield from _absent(plan.source, [(plan.keys.signing_key, FindingId.BACKUP_FAILED)])


def _keys(plan: Plan) -> list[str]:
    """Keys in the recovery vault that farside itself needs."""
    return [plan.keys.identity, *filter(None, [plan.keys.record_key])]


def _absent(domain: FailureDomain, names: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    there = domain.vault.names() if domain.vault is not None else []
    lacks = "holds no such secret" if domain.vault is not None else "does not exist"
    for name, finding_id in names:
        if name not in there:
            own = (
                None
                if finding_id == FindingId.KEY_ONLY_IN_SOURCE
                else f"Put it there, under the name {name}."
            )
            text = f"the vault of {domain.name} {lacks}"
            yield finding(finding_id, name, text, STAGE, remedy=own)


def authentic(rehearsal: Rehearsal, reader: SetReader) -> Manifest:
    """The manifest of a set, of which a restore may be made.

    Raises ManifestForged, and ManifestMalformed where its facts are not what a source says.
    """
    plan = rehearsal.plan
    manifest = reader.manifest()
    try:
        plan.engine.read_facts(manifest.engine_facts)
    except PermanentError as error:
        raise ManifestMalformed(
            f"set {reader.set_id}: {error.message}",
            operation="verify manifest",
            domain=plan.recovery.name,
            hint="it is signed, so the holder of the signing key wrote this: restore another set,"
            " and find out what the source has become",
        ) from None
    return manifest


def exposed_secrets(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Secrets of the recovery vault that other accounts of its host could read or replace."""
    vault = rehearsal.recovery.vault
    for name, text in vault.exposed().items() if vault is not None else ():
        yield finding(
            FindingId.SECRET_EXPOSED, f"{rehearsal.recovery.name} vault, {name}", text, STAGE
        )


def record_signer(rehearsal: Rehearsal) -> Iterator[Finding]:
    """A key in the recovery vault of which the plan pins another's public half.

    What it signs never counts: not in the history, and not for expiry.
    """
    keys = rehearsal.plan.keys
    if keys.record_key is None or keys.record_signer is None:
        return
    try:
        public = public_key_of(rehearsal.recovery.secret(keys.record_key).get_secret_value())
        if key_id(public) == key_id(keys.record_signer):
            return
        text = f"it signs as {public}, and record_signer in the plan is {keys.record_signer}"
        remedy = "Give the plan the public half of the key, or the vault the key that is pinned."
    except KeyMalformed as error:
        text, remedy = error.message, "Put a signing key there: no record is signed until then."
    except FarsideError:
        return  # what is not there, or cannot be had, is found by its name
    text = f"{text}: no record of this plan counts as evidence"
    yield finding(
        FindingId.KEY_STALE, keys.record_key, text, STAGE, severity=Severity.MEDIUM, remedy=remedy
    )


def locked_keys(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Keys in the recovery vault that are encrypted themselves, and nothing there opens."""
    return _locked(rehearsal, _keys(rehearsal.plan), Severity.CRITICAL)


def locked_secrets(rehearsal: Rehearsal) -> Iterator[Finding]:
    """The same of all other secrets: one may be used as it is, which verify shows."""
    plan, keys = rehearsal.plan, _keys(rehearsal.plan)
    names = [*plan.engine.passwords, *(item.secret for item in plan.secrets)]
    return _locked(rehearsal, [name for name in names if name not in keys], Severity.MEDIUM)


def _locked(rehearsal: Rehearsal, names: Iterable[str], severity: Severity) -> Iterator[Finding]:
    vault = rehearsal.recovery.vault
    for name in dict.fromkeys(names):
        if vault is not None and (by := vault.locked(name)):
            text = f"it is encrypted itself, by {by}: what opens it is not in the recovery vault"
            yield finding(
                FindingId.KEY_CHAIN_IN_SOURCE,
                name,
                text,
                STAGE,
                severity=severity,
                remedy="Keep it there as it is used, or give the vault a read_argv that "
                "unlocks it with what the recovery domain has.",
            )


def writes(rehearsal: Rehearsal) -> Iterator[Finding]:
    """What the stores refuse of the requests that a fresh set needs, before one is taken."""
    plan = rehearsal.plan
    for domain in (plan.source, plan.recovery):
        try:
            try_writing(domain.store, f"sets/{plan.name}/{rehearsal.id}/write-test")
        except FarsideError as error:
            yield finding(
                error.finding or FindingId.STORE_NOT_WRITABLE,
                f"{domain.name} store, sets/",
                f"{error.operation}: {error.message}",
                STAGE,
                severity=Severity.CRITICAL,
                remedy=error.hint or None,
            )


def known_state(rehearsal: Rehearsal, set_id: str, into: Inspection) -> KnownState | None:
    """What a set was at least when it was rehearsed before; None if no record tells of it.

    The store says itself how new a set is: what is remembered lies in the results folder, and in
    signed records next to the set, where this machine's folder does not last. Why records may tell
    less than there was goes to `into.unseen`.
    """
    missing, seen = list[str](), list[int]()
    for place in places(rehearsal.plan, rehearsal.options.results, set_id):
        try:
            earlier = place.read()
        except FarsideError as error:
            missing.append(f"no record in the {place.name} could be asked: {error}")
            continue
        if earlier.left_out:
            missing.append(f"records that do not count: {listed(earlier.left_out)}")
        sets = [record.backup_set for record in earlier.records if record.backup_set is not None]
        seen += [
            item.log_sequence
            for item in sets
            if item.id == set_id and item.log_sequence is not None
        ]
    if not seen:
        missing.append("no earlier record tells of it")
    if missing:
        text = f"whether set {set_id} has been further than the store says"
        into.unseen.append(f"{text}: {'; '.join(missing)}")
    return KnownState(set_id, max(seen)) if seen else None


def retained(rehearsal: Rehearsal, *, chosen: Manifest | None) -> Iterator[Finding]:
    """What is wrong with the sets in the recovery store, of which each is looked at."""
    plan = rehearsal.plan
    found = list(headers(plan.recovery.store, plan.binding))
    for set_id, header in found:
        if isinstance(header, FarsideError):
            # Such a set is never chosen by `latest`, `oldest` or `random`.
            yield finding(
                header.finding or FindingId.MANIFEST_FORGED,
                f"set {set_id}",
                header.message,
                STAGE,
                severity=None if isinstance(header, ForeignSet) else Severity.HIGH,
            )
    yield from _recipients(rehearsal, found, chosen)


def _recipients(
    rehearsal: Rehearsal,
    retained: Sequence[tuple[str, SetHeader | FarsideError]],
    chosen: Manifest | None,
) -> Iterator[Finding]:
    """Sets that no key in the recovery vault opens, told by the public halves next to the keys.

    Without public halves nothing can be told before the loss: the key fetch compares.
    """
    plan = rehearsal.plan
    if plan.recovery.vault is None:
        return
    keys = plan.recovery.vault.identities()
    if not keys:
        return
    own = f"the vault of {plan.recovery.name} holds the keys of {', '.join(keys)}"
    if rehearsal.fresh and not set(keys) & set(plan.keys.recipients):
        text = f"{own}; the plan seals to {', '.join(plan.keys.recipients)}"
        yield finding(FindingId.SEALED_TO_SOURCE_ONLY, plan.keys.identity, text, STAGE)
    for set_id, header in retained:
        if isinstance(header, FarsideError) or set(keys) & set(header.recipients):
            continue
        is_chosen = chosen is not None and chosen.set_id == set_id
        text = f"{own}; set {set_id} is sealed to {', '.join(header.recipients)}"
        worst = Severity.CRITICAL if is_chosen else Severity.HIGH
        yield replace(unopened(rehearsal, header, text, STAGE), severity=worst)


def unopened(
    rehearsal: Rehearsal, manifest: Manifest | SetHeader, text: str, stage: str
) -> Finding:
    """A set that no key of the recovery vault opens: never sealed to it, or to one that is gone."""
    if set(manifest.recipients) <= set(rehearsal.plan.keys.recipients):
        return finding(FindingId.SEALED_TO_SOURCE_ONLY, rehearsal.plan.keys.identity, text, stage)
    return finding(FindingId.KEY_ROTATED_AWAY, f"set {manifest.set_id}", text, stage)


def copies(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Sets of the source, newer than all in the recovery store, that never got there."""
    plan = rehearsal.plan
    newest = max(set_ids(plan.recovery.store, plan.name), default="")
    missing = [set_id for set_id in set_ids(plan.source.store, plan.name) if set_id > newest]
    if missing:
        text = f"{len(missing)} complete sets are only in {plan.source.name}: "
        yield finding(FindingId.COPY_BEHIND, plan.name, text + ", ".join(missing[-5:]), STAGE)


def evidence(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Whether the record can be kept where the source's loss does not reach it."""
    plan = rehearsal.plan
    key, store = f"records/{plan.name}/{rehearsal.id}.probe", plan.recovery.store
    try:
        store.put(key, b"farside writes its record here\n")
        store.remove([key])
    except FarsideError as error:
        yield finding(
            error.finding or FindingId.CREDENTIAL_REFUSED,
            f"{plan.recovery.name} store, records/",
            f"the record cannot be kept there: {error.message}",
            STAGE,
            severity=Severity.MEDIUM,
            remedy="Let farside write and remove objects under records/ of the recovery store.",
        )


def objects(reader: SetReader, manifest: Manifest, log: LogIndex, stage: str) -> Iterable[Finding]:
    """Objects of a set that the recovery store lacks, has cut off, or keeps in an archive."""
    return [
        finding(defect.finding, defect.key, defect.text, stage)
        for defect in reader.defects((*manifest.objects, *log.objects))
    ]
