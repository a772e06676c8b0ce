"""Keys, credentials and backup sets, looked at from the recovery side before anything is lost."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from blocks.artifact.manifest import LogIndex, Manifest, ManifestForged, ManifestMalformed
from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.sets import SetReader, set_ids
from tasks.inspection import STAGE
from tasks.rehearsal import Rehearsal


def secrets(rehearsal: Rehearsal, *, of_source: bool) -> Iterator[Finding]:
    """Which secrets the vaults lack, by name; none is read before the declaration."""
    plan = rehearsal.plan
    wanted = [(plan.recovery, plan.keys.identity, "key-only-in-source")]
    wanted += [(plan.recovery, name, "login-missing") for name in plan.engine.passwords()]
    wanted += [(plan.recovery, item.secret, "app-secret-missing") for item in plan.secrets]
    if plan.keys.record_key:
        wanted.append((plan.recovery, plan.keys.record_key, "key-only-in-source"))
    if of_source and plan.keys.signing_key:
        wanted.append((plan.source, plan.keys.signing_key, "backup-failed"))
    for domain in (plan.recovery, plan.source):
        names = [(name, id) for where, name, id in wanted if where is domain]
        if names:
            yield from _absent(domain, names)


def _absent(domain: FailureDomain, names: list[tuple[str, str]]) -> Iterator[Finding]:
    there = domain.vault.names() if domain.vault is not None else []
    lacks = "holds no such secret" if domain.vault is not None else "does not exist"
    for name, id in names:
        if name not in there:
            own = None if id == "key-only-in-source" else f"Put it there, under the name {name}."
            text = f"the vault of {domain.name} {lacks}"
            yield finding(id, name, text, STAGE, remedy=own)


def recipients(rehearsal: Rehearsal, *, chosen: Manifest | None) -> Iterator[Finding]:
    """Sets that no key in the recovery vault opens, told by the public halves beside the keys.

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
        yield finding("sealed-to-source-only", plan.keys.identity, text, STAGE)
    for id in set_ids(plan.recovery.store, plan.name):
        reader = SetReader(plan.recovery, plan.name, id, rehearsal.id)
        is_chosen = chosen is not None and chosen.set_id == id
        try:
            manifest = reader.manifest(plan.keys.signer)
        except (ManifestForged, ManifestMalformed) as error:
            yield finding(
                "manifest-forged", f"set {id}", error.message, STAGE, severity=Severity.HIGH
            )
            continue
        if set(keys) & set(manifest.recipients):
            continue
        text = f"{own}; set {id} is sealed to {', '.join(manifest.recipients)}"
        worst = Severity.CRITICAL if is_chosen else None
        yield replace(unopened(rehearsal, manifest, text, STAGE), severity=worst or Severity.HIGH)


def unopened(rehearsal: Rehearsal, manifest: Manifest, text: str, stage: str) -> Finding:
    """A set that no key of the recovery vault opens: never sealed to it, or to one that is gone."""
    if set(manifest.recipients) <= set(rehearsal.plan.keys.recipients):
        return finding("sealed-to-source-only", rehearsal.plan.keys.identity, text, stage)
    return finding("key-rotated-away", f"set {manifest.set_id}", text, stage)


def copies(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Sets of the source, newer than all in the recovery store, that never got there."""
    plan = rehearsal.plan
    newest = max(set_ids(plan.recovery.store, plan.name), default="")
    missing = [id for id in set_ids(plan.source.store, plan.name) if id > newest]
    if missing:
        text = f"{len(missing)} complete sets are only in {plan.source.name}: "
        yield finding("copy-behind", plan.name, text + ", ".join(missing[-5:]), STAGE)


def evidence(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Whether the record can be kept where the source's loss does not reach it."""
    plan = rehearsal.plan
    key, store = f"records/{plan.name}/{rehearsal.id}.probe", plan.recovery.store
    try:
        store.put(key, b"farside writes its record here\n")
        store.remove([key])
    except FarsideError as error:
        yield finding(
            error.finding or "credential-refused",
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
