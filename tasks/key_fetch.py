"""Key fetch: the private key comes from the recovery domain's vault, and from nowhere else."""

from dataclasses import dataclass

from pydantic import SecretStr

from blocks.artifact.age_keys import recipient_of
from blocks.artifact.manifest import LogIndex, Manifest
from blocks.evidence.findings import finding
from blocks.sets import SetReader
from tasks.declare import Declaration
from tasks.diagnose import FoundProblems
from tasks.rehearsal import Rehearsal, stage

STAGE = "key fetch"


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
) -> Opening:
    """Check the signatures, fetch the key and compare it with the recipients of this very set."""
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("manifest"):
            manifest, log = reader.manifest(plan.keys.signer), reader.log(plan.keys.signer)
        with clock.step("vault"):
            identity = plan.recovery.secret(plan.keys.identity)
        recipient = recipient_of(identity.get_secret_value())
        if recipient not in manifest.recipients:
            sealed_to_us = any(own in manifest.recipients for own in plan.keys.recipients)
            raise FoundProblems(
                STAGE,
                (
                    finding(
                        "key-stale" if sealed_to_us else "sealed-to-source-only",
                        plan.keys.identity,
                        f"the vault of {plan.recovery.name} holds the key of {recipient}; set"
                        f" {manifest.set_id} is sealed to {', '.join(manifest.recipients)}",
                        STAGE,
                    ),
                ),
            )
        return Opening(manifest, log, identity)
