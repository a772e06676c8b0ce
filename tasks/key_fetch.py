"""Key fetch: the private key comes from the recovery domain's vault, and from nowhere else."""

from dataclasses import dataclass

from pydantic import SecretStr

from blocks.artifact.age.keys import AgeKeyMalformed, recipient_of, without_comments
from blocks.artifact.manifest import LogIndex, Manifest, digest_of
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from blocks.repositories.farside.binding import KnownState
from blocks.repositories.farside.reader import SetReader
from tasks.context import Rehearsal, stage
from tasks.declare import Declaration
from tasks.inspect import sets
from tasks.inspect.diagnose import FoundProblems

STAGE = StageName.KEY_FETCH


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens a set: the verified manifest and log, and the key that is among its recipients."""

    manifest: Manifest
    log: LogIndex
    identity: SecretStr


@stage(STAGE, retries=3, limit=300)
def key_fetch(
    rehearsal: Rehearsal,
    reader: SetReader,
    declaration: Declaration,  # noqa: ARG001 (it orders the DAG: no key is read before the loss)
    known: KnownState | None,
) -> Opening:
    """Check the signatures, fetch the key and compare it with the recipients of this very set.

    `known` is what the set must be at least: what was written, or what a record tells of it.
    """
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("manifest"):
            manifest = sets.authentic(rehearsal, reader)
            log = reader.log()
            if known is not None:
                known.compare(digest_of(manifest), log.sequence)
        with clock.step("objects"):
            rehearsal.findings.add(*sets.objects(reader, manifest, log, STAGE))
        with clock.step("vault"):
            name = _identity_for(rehearsal, manifest)
            secret = plan.recovery.secret(name).get_secret_value()
            identity = SecretStr(without_comments(secret))
        try:
            recipient = recipient_of(identity.get_secret_value())
        except AgeKeyMalformed as error:
            text = f"the vault of {plan.recovery.name} holds no age identity: {error.message}"
            raise FoundProblems(STAGE, (finding(FindingId.KEY_STALE, name, text, STAGE),)) from None
        if recipient not in manifest.recipients:
            raise FoundProblems(STAGE, (_wrong_key(rehearsal, manifest, name, recipient),))
        return Opening(manifest, log, identity)


def _identity_for(rehearsal: Rehearsal, manifest: Manifest) -> str:
    """The name of the identity that this set was sealed to: a retired one, for an old set."""
    vault = rehearsal.recovery.vault
    known = vault.identities() if vault is not None else {}
    fitting = [known[recipient] for recipient in manifest.recipients if recipient in known]
    own = rehearsal.plan.keys.identity
    return own if own in fitting or not fitting else fitting[0]


def _wrong_key(rehearsal: Rehearsal, manifest: Manifest, name: str, recipient: str) -> Finding:
    """Which assumption broke: the key is not the one it is taken for, or was never a recipient."""
    vault = rehearsal.recovery.vault
    taken_for = {of: own for own, of in vault.identities().items()} if vault is not None else {}
    text = (
        f"the vault of {rehearsal.recovery.name} holds the key of {recipient}; set"
        f" {manifest.set_id} is sealed to {', '.join(manifest.recipients)}"
    )
    if name in taken_for and taken_for[name] not in manifest.recipients:
        return sets.unopened(rehearsal, manifest, text, STAGE)
    if name in taken_for or set(manifest.recipients) & set(rehearsal.plan.keys.recipients):
        return finding(FindingId.KEY_STALE, name, text, STAGE)
    return sets.unopened(rehearsal, manifest, text, STAGE)
