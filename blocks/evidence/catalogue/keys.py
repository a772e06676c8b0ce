"""Keys, certificates and credentials."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.KEY_ONLY_IN_SOURCE,
        Category.KEYS,
        Severity.CRITICAL,
        "the private key cannot be had in the recovery domain",
        "Escrow an age identity that is among the plan's recipients in the recovery domain's "
        "vault, under the name that the plan gives it.",
    ),
    Assumption(
        FindingId.SEALED_TO_SOURCE_ONLY,
        Category.KEYS,
        Severity.CRITICAL,
        "the recovery domain is not among the set's recipients",
        "Add the recovery domain's age recipient to the plan, take a new backup, and re-seal or "
        "expire the sets that lack it.",
    ),
    Assumption(
        FindingId.KEY_STALE,
        Category.KEYS,
        Severity.CRITICAL,
        "the key in the recovery vault is not the one that a set was sealed to, or that is pinned",
        "Escrow the identity that belongs to the recipients in the manifest, and keep older "
        "identities for as long as sets sealed to them are retained.",
    ),
    Assumption(
        FindingId.KEY_ROTATED_AWAY,
        Category.KEYS,
        Severity.HIGH,
        "a retained set can no longer be opened by any key in the recovery vault",
        "Put the retired identity back into the recovery vault, or re-seal the old sets to the "
        "current recipients.",
    ),
    Assumption(
        FindingId.KEY_CHAIN_IN_SOURCE,
        Category.KEYS,
        Severity.HIGH,
        "what protects the key lies in the source domain",
        "Move whatever unlocks the recovery vault (passphrase, KMS key, unsealing peer) out of "
        "the source domain.",
    ),
    Assumption(
        FindingId.APP_SECRET_MISSING,
        Category.KEYS,
        Severity.CRITICAL,
        "a secret that the application needs to read its rows did not come along",
        "Escrow the application's own secrets in the recovery vault together with the backup key.",
    ),
    Assumption(
        FindingId.SECRET_EXPOSED,
        Category.KEYS,
        Severity.HIGH,
        "a secret in the recovery vault can be read or replaced by other accounts",
        "Give the file to the vault's account alone (mode 0600, its directory 0700), and change "
        "the secret if others may have read it.",
    ),
    Assumption(
        FindingId.LOGIN_MISSING,
        Category.KEYS,
        Severity.CRITICAL,
        "the application's role cannot connect after the restore",
        "Make sure that roles, grants and passwords are part of the backup, and that the recovery "
        "vault holds the application's current password.",
    ),
    Assumption(
        FindingId.CA_UNKNOWN,
        Category.KEYS,
        Severity.CRITICAL,
        "the recovery side does not trust a certificate that it meets",
        "Install the recovery domain's own CA certificate there and name it in the plan "
        "(ca_file); never trust one that the source issues.",
    ),
    Assumption(
        FindingId.CA_IN_SOURCE,
        Category.KEYS,
        Severity.HIGH,
        "who issued a certificate that the recovery side meets is the source domain's",
        "Let an authority that outlives the source issue the recovery side's certificates: with "
        "this one lost, none can be renewed or revoked, and who takes it can issue any.",
    ),
    Assumption(
        FindingId.SSH_TRUST_MISSING,
        Category.KEYS,
        Severity.CRITICAL,
        "an SSH key or a host key is not known on the recovery side",
        "Compare the host's key on its console with the host_key in the plan, correct the plan if "
        "the change was wanted, and authorise the operator's key on the host.",
    ),
    Assumption(
        FindingId.CREDENTIAL_REFUSED,
        Category.KEYS,
        Severity.CRITICAL,
        "a credential that the recovery needs is refused",
        "Issue it again in the recovery domain, name it in the plan, and check what its policy "
        "allows.",
    ),
    Assumption(
        FindingId.CREDENTIAL_FROM_SOURCE,
        Category.KEYS,
        Severity.HIGH,
        "a credential came from the source domain's vault or account",
        "Issue a credential in the recovery domain and put that one into the plan.",
    ),
)
