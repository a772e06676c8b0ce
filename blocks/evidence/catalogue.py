"""Every assumption that a rehearsal can break: its id, severity, title and remedy."""

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    """What kind of assumption broke."""

    KEYS = "keys"
    TOOLING = "tooling"
    TOPOLOGY = "topology"
    TIME = "time"
    INTEGRITY = "integrity"
    ISOLATION = "isolation"


class Severity(StrEnum):
    """How bad it is in a real disaster."""

    CRITICAL = "critical"
    """Recovery is impossible, or what comes back is wrong."""
    HIGH = "high"
    """In a real disaster it would be: it leans on the domain that was lost, or comes too late."""
    MEDIUM = "medium"
    """Worth mending before the day."""
    INFO = "info"
    """Worth knowing."""

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Assumption:
    """A row of the catalogue: what a broken assumption is called and what mends it."""

    id: str
    category: Category
    severity: Severity
    title: str
    remedy: str
    stops: bool = False
    """Met in preflight, it ends the rehearsal there: to go on would endanger production."""
    isolation: bool = False
    """The restored service can reach production, or be reached: never accepted wholesale."""


def id_of_code(code: str) -> str | None:
    """The finding that an error code of the agent stands for; None if it is none."""
    return _BY_CODE.get(code)


_CRITICAL, _HIGH, _MEDIUM = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM
_INFO = Severity.INFO
_KEYS = (
    (
        "key-only-in-source",
        _CRITICAL,
        "the private key cannot be had in the recovery domain",
        "Escrow an age identity that is among the plan's recipients in the recovery domain's "
        "vault, under the name that the plan gives it.",
    ),
    (
        "sealed-to-source-only",
        _CRITICAL,
        "the recovery domain is not among the set's recipients",
        "Add the recovery domain's age recipient to the plan, take a new backup, and re-seal "
        "or expire the sets that lack it.",
    ),
    (
        "key-stale",
        _CRITICAL,
        "the key in the recovery vault is not the one that a set was sealed to, or that is pinned",
        "Escrow the identity that belongs to the recipients in the manifest, and keep older "
        "identities for as long as sets sealed to them are retained.",
    ),
    (
        "key-rotated-away",
        _HIGH,
        "a retained set can no longer be opened by any key in the recovery vault",
        "Put the retired identity back into the recovery vault, or re-seal the old sets to the "
        "current recipients.",
    ),
    (
        "key-chain-in-source",
        _HIGH,
        "what protects the key lies in the source domain",
        "Move whatever unlocks the recovery vault (passphrase, KMS key, unsealing peer) out of "
        "the source domain.",
    ),
    (
        "app-secret-missing",
        _CRITICAL,
        "a secret that the application needs to read its rows did not come along",
        "Escrow the application's own secrets in the recovery vault together with the backup key.",
    ),
    (
        "secret-exposed",
        _HIGH,
        "a secret in the recovery vault can be read or replaced by other accounts",
        "Give the file to the vault's account alone (mode 0600, its directory 0700), and change "
        "the secret if others may have read it.",
    ),
    (
        "login-missing",
        _CRITICAL,
        "the application's role cannot connect after the restore",
        "Make sure that roles, grants and passwords are part of the backup, and that the "
        "recovery vault holds the application's current password.",
    ),
    (
        "ca-unknown",
        _CRITICAL,
        "the recovery side does not trust a certificate that it meets",
        "Install the recovery domain's own CA certificate there and name it in the plan "
        "(ca_file); never trust one that the source issues.",
    ),
    (
        "ca-in-source",
        _HIGH,
        "who issued a certificate that the recovery side meets is the source domain's",
        "Let an authority that outlives the source issue the recovery side's certificates: with "
        "this one lost, none can be renewed or revoked, and who takes it can issue any.",
    ),
    (
        "ssh-trust-missing",
        _CRITICAL,
        "an SSH key or a host key is not known on the recovery side",
        "Compare the host's key on its console with the host_key in the plan, correct the plan "
        "if the change was wanted, and authorise the operator's key on the host.",
    ),
    (
        "credential-refused",
        _CRITICAL,
        "a credential that the recovery needs is refused",
        "Issue it anew in the recovery domain, name it in the plan, and check what its policy "
        "allows.",
    ),
    (
        "credential-from-source",
        _HIGH,
        "a credential came from the source domain's vault or account",
        "Issue a credential in the recovery domain and put that one into the plan.",
    ),
)
_TOOLING = (
    (
        "tool-missing",
        _CRITICAL,
        "a program that the restore calls is not on the recovery host",
        "Install it on the recovery host, from packages that do not come from the source domain.",
    ),
    (
        "engine-version",
        _CRITICAL,
        "the recovery side runs a version that cannot read the set",
        "Install the major version named in the manifest on the recovery host, and upgrade both "
        "domains together from now on.",
    ),
    (
        "extension-missing",
        _CRITICAL,
        "an extension's library is not installed on the recovery side",
        "Install the package of the extension on the recovery host, in the source's version.",
    ),
    (
        "library-preloaded",
        _HIGH,
        "the configuration preloads a library that is not there",
        "Install the library on the recovery host, or decide that the restored service runs "
        "without it and say so in the recovery plan.",
    ),
    (
        "locale-changed",
        _CRITICAL,
        "text sorts differently on the recovery side",
        "Use the same C library and ICU versions on both sides, or plan a REINDEX of every "
        "text index into the RTO.",
    ),
    (
        "locale-missing",
        _CRITICAL,
        "a locale or time zone that data or settings name is not on the recovery side",
        "Install the locale (Debian: locales; RHEL: glibc-langpack-*) or the time zones on the "
        "recovery host, or change what names them.",
    ),
    (
        "setting-too-low",
        _CRITICAL,
        "a setting on the recovery side is too low for the replay",
        "Raise the setting on the recovery side to at least the source's value.",
    ),
    (
        "tool-fetched-from-source",
        _HIGH,
        "a tool, package, image or script was fetched from the source domain",
        "Install it ahead of time, or mirror it into the recovery domain.",
    ),
    (
        "tool-linked-to-source",
        _HIGH,
        "a library, interpreter, module or link that a tool needs leads into the source domain",
        "Install the tool on the recovery host with all that it loads; ldd, the script's first "
        "line and readlink -f show what leads where.",
    ),
    (
        "control-plane-in-source",
        _HIGH,
        "the orchestrator, its database or its workers are in the source domain",
        "Run farside and its Prefect server outside the source domain, best in the recovery one.",
    ),
    (
        "disk-too-small",
        _CRITICAL,
        "the restored data does not fit on the recovery host",
        "Give the target at least the space that the evidence asks for.",
    ),
    (
        "clock-skew",
        _HIGH,
        "clocks disagree",
        "Run a time service on the host, from a time source outside the source domain.",
    ),
    (
        "store-unreachable",
        _CRITICAL,
        "the object store that the recovery needs does not answer",
        "Start the store, or correct its endpoint in the plan; check the route from where farside "
        "and the recovery hosts run.",
    ),
    (
        "store-not-writable",
        _CRITICAL,
        "a store refuses a request that storing a backup set needs",
        "Allow the request that the evidence names, in the bucket's policy and in what the store "
        "demands of requests: sets are put as objects and in parts, each with its Content-MD5.",
    ),
    (
        "host-unreachable",
        _CRITICAL,
        "a host that the recovery needs cannot be reached",
        "Start the host, or correct its address and port in the plan; check the route from "
        "where farside runs.",
    ),
)
_TOPOLOGY = (
    (
        "address-hard-coded",
        _HIGH,
        "configuration or data names an address of the source",
        "Replace the address by a name that the recovery domain resolves itself, or make the "
        "change part of the recovery plan.",
    ),
    (
        "path-hard-coded",
        _HIGH,
        "configuration names a path of the old host",
        "Use paths that exist in both domains, or map them in the plan.",
    ),
    (
        "name-resolves-to-source",
        _HIGH,
        "a name used on the recovery side leads back to the source",
        "Serve the name from resolvers of the recovery domain, with the recovery side's address.",
    ),
    (
        "storage-from-source",
        _HIGH,
        "a directory or file in use on the recovery side is mounted from, or linked into, the "
        "source domain",
        "Give the recovery host storage of its own; findmnt -T and readlink -f show where a path "
        "leads.",
    ),
    (
        "access-from-source-only",
        _HIGH,
        "the source's access rules let the application in from the source's networks only",
        "Add rules for the recovery domain's networks to the source's configuration now, so that "
        "what is taken over on the day lets the application in.",
    ),
    (
        "node-count-differs",
        _CRITICAL,
        "the cluster does not come up with the number of nodes that the recovery domain has",
        "Write down, and rehearse, the shape that the recovery domain really has.",
    ),
    (
        "node-identity-reused",
        _CRITICAL,
        "a restored node carries an identity of the old cluster",
        "Give the restored cluster a new identity before it may talk to anybody.",
    ),
    (
        "revision-reused",
        _MEDIUM,
        "clients that watch or cache notice that the restored cluster is another one",
        "Restart every client that watches or caches once the cluster is restored, or have an etcd "
        "on every recovery host that can raise the revision: 3.5.10 and later can.",
    ),
    (
        "peer-list-stale",
        _HIGH,
        "a node waits for a peer that is gone",
        "Rewrite membership from the recovery domain's inventory during the restore.",
    ),
    (
        "placement-dropped",
        _HIGH,
        "replicas are not where they should be",
        "Define placement for the recovery domain's own zones and re-apply it after the restore.",
    ),
    (
        "port-taken",
        _CRITICAL,
        "a port that the restored service needs is taken",
        "Stop what listens there, or give the target another port in the plan.",
    ),
    (
        "work-dir-untrusted",
        _CRITICAL,
        "other accounts or machines could write to farside's directory on a host",
        "Name a work_dir on a disk of the host's own that the account owns, to which no other "
        "account can write, with no link on the way; ~/.farside, the default, is one where homes "
        "are not shared.",
    ),
    (
        "target-occupied",
        _CRITICAL,
        "something lives in the target directory",
        "Name an empty directory in the plan, or move away what is there; farside never "
        "overwrites. What an earlier rehearsal left is removed by `python -m flows.sweep`.",
    ),
    (
        "store-region-hard-coded",
        _HIGH,
        "bucket, region or endpoint are the source domain's",
        "Name the recovery domain's own bucket, region and endpoint.",
    ),
    (
        "use-unattributed",
        Severity.INFO,
        "something was used that belongs to no domain of the plan",
        "Say in the plan whose it is: add its network, name or path to the domain that it is lost "
        "with, or learn that it is in neither.",
    ),
    (
        "source-used",
        _HIGH,
        "something of the source was used, or asked for, after it was lost",
        "Give the recovery side its own copy of what the evidence names; with the source gone "
        "for good, this call hangs or fails.",
    ),
)
_TIME = (
    (
        "rto-missed",
        _HIGH,
        "recovery took longer than its objective",
        "Shorten the stage that dominates, or agree on an objective that can be kept.",
    ),
    (
        "rpo-missed",
        _HIGH,
        "more recent data was lost than the objective allows",
        "Ship the log more often or more quickly, or agree on an objective that can be kept.",
    ),
    (
        "bandwidth-insufficient",
        _HIGH,
        "at production size and the link's rate, recovery does not fit its objective",
        "Widen the link, keep a recent copy on the far side, or make the backups smaller.",
    ),
    (
        "copy-behind",
        _HIGH,
        "the copy on the far side is incomplete or old",
        "Find out why the transfer fell behind, and alert on the age of the newest complete set "
        "in the recovery store.",
    ),
    (
        "log-gap",
        _CRITICAL,
        "the log is broken before the recovery target",
        "Find out why the segment is missing, take a new base backup at once, and alert on the "
        "archiver's failures.",
    ),
    (
        "log-not-followed",
        _CRITICAL,
        "the following of the source's log ended before it was to",
        "Look at the receiver's last words in the evidence, and at the source's and the backup "
        "host's logs; then rehearse again.",
    ),
    (
        "log-retention-unbounded",
        _INFO,
        "nothing limits what the source keeps for a replication slot",
        "Set max_slot_wal_keep_size to less than the free space of the source's log directory; "
        "without it a short interruption may end a backup.",
    ),
    (
        "source-not-archiving",
        _HIGH,
        "the source's own archiving does not work: its log piles up, and its backups end",
        "Mend archive_command (or archive_library) at the source, and alert on "
        "pg_stat_archiver.failed_count and on the age of the newest archived segment.",
    ),
    (
        "source-at-limit",
        _HIGH,
        "the source has too few places left for a backup: its own clients would go without",
        "Raise the setting that the evidence names, or end what holds its places (idle sessions, "
        "slots that nobody reads); then rehearse again.",
    ),
    (
        "copy-is-cold",
        _CRITICAL,
        "objects cannot be read at once: they are in an archive storage class",
        "Keep the sets that recovery needs in a storage class that is readable at once, or put "
        "the retrieval time into the RTO.",
    ),
    (
        "usable-not-restored",
        _HIGH,
        "the service is up, but not yet fit for use",
        "Plan warming, index builds and replica catch-up into the recovery and its RTO.",
    ),
    (
        "many-at-once",
        _HIGH,
        "the fleet does not recover in time together",
        "Set an order of recovery, and size links, stores and hosts for concurrent restores.",
    ),
)
_INTEGRITY = (
    (
        "object-corrupt",
        _CRITICAL,
        "an object is not what was written",
        "Copy the object again from another store if one has it; otherwise the set is lost: "
        "take a new backup, and look for the fault in the store or on the way.",
    ),
    (
        "object-missing",
        _CRITICAL,
        "an object that the manifest names is not in the recovery store",
        "Transfer the set again, and compare the store's lifecycle rules with the retention "
        "that recovery needs.",
    ),
    (
        "manifest-forged",
        _CRITICAL,
        "the manifest's signature is not the source's",
        "Treat the store as compromised until it is explained. If the signing key was changed "
        "on purpose, pin the new public key in the plan.",
    ),
    (
        "set-of-another-plan",
        _CRITICAL,
        "a set in the recovery store is another plan's, or an older state of itself",
        "Do not restore it. Find out who copied or replaced it there, remove it, and give each "
        "plan a signing key of its own.",
    ),
    (
        "incomplete-restore",
        _CRITICAL,
        "what came back is not all of it",
        "Compare the restored database with the manifest as the evidence says; find out what "
        "the backup leaves out.",
    ),
    (
        "index-corrupt",
        _CRITICAL,
        "an index disagrees with its table",
        "REINDEX it, then find the cause: a changed collation, a faulty disk, or a source that "
        "was corrupt already.",
    ),
    (
        "page-corrupt",
        _CRITICAL,
        "a page fails its checksum",
        "Check the source's own pages; if they are sound, check the recovery host's disk and "
        "memory, and restore again.",
    ),
    (
        "check-failed",
        _CRITICAL,
        "the plan's own check gives another answer on the restored service",
        "Compare expected and actual in the record; until it is explained, the backup does not "
        "bring back what the business needs.",
    ),
    (
        "backup-failed",
        _CRITICAL,
        "no backup could be taken",
        "Mend what the evidence names on the source side: today's data has no way across.",
    ),
    (
        "log-replay-short",
        _CRITICAL,
        "the log was not replayed to the end that crossed",
        "Find the record at the position that the evidence names (pg_waldump); take a new base "
        "backup, and look at the disk and the memory of the host that wrote the log.",
    ),
    (
        "restore-failed",
        _CRITICAL,
        "the restore did not succeed",
        "Mend what the evidence names on the recovery host, then rehearse again.",
    ),
)
_ISOLATION = (
    (
        "recovery-is-source",
        _CRITICAL,
        "a machine of the recovery side is one of the source's, or at work for it",
        "Correct the address in the plan, or rehearse on machines that do no work for the source: "
        "a restore there, or its fence, would hit production.",
    ),
    (
        "archive-into-production",
        _CRITICAL,
        "the restored instance archives towards production",
        "Clear the archiving settings in the restored configuration before the first start.",
    ),
    (
        "restored-jobs-fire",
        _CRITICAL,
        "a scheduler, subscription, slot or hook is awake on the restored service",
        "Disable it during the restore, before the service may reach anything.",
    ),
    (
        "service-more-open",
        _CRITICAL,
        "the restored service asks its clients for less than the source did",
        "Have the restored service ask for what the source asks for (user and password, client "
        "certificate, TLS), before anything can reach it.",
    ),
    (
        "fence-leaks",
        _CRITICAL,
        "the source can still be reached from the recovery side",
        "Close the route that the evidence names; without a fence the rehearsal proves nothing.",
    ),
    (
        "fence-stays",
        _CRITICAL,
        "the fence could not be lifted after the rehearsal",
        "Lift it by hand at once, with the plan's lift_argv, then run `python -m flows.sweep`: "
        "until then the recovery side is not ready for the real thing.",
    ),
    (
        "leftovers",
        _MEDIUM,
        "something of a rehearsal remains",
        "Run `python -m flows.sweep`, and remove by hand what it reports as remaining.",
    ),
)
_STOPS = frozenset(
    {
        "recovery-is-source",
        "source-used",
        "store-region-hard-coded",
        "fence-leaks",
        "source-at-limit",
        "work-dir-untrusted",
    }
)
"""What endangers production, or leaves no safe fence: who else has raised it, the markers in work
directories tell. All else is learned from, or ends a restore before it begins; what a single case
makes unsafe (another rehearsal on the target, a fence that cannot be raised, farside inside the
source) preflight puts among its `ends` itself."""
_BREAKS_ISOLATION = frozenset(
    {
        "recovery-is-source",
        "source-used",
        "store-region-hard-coded",
        "fence-leaks",
        "archive-into-production",
        "restored-jobs-fire",
        "service-more-open",
    }
)
CATALOGUE: dict[str, Assumption] = {
    id: Assumption(id, category, severity, title, remedy, id in _STOPS, id in _BREAKS_ISOLATION)
    for category, rows in (
        (Category.KEYS, _KEYS),
        (Category.TOOLING, _TOOLING),
        (Category.TOPOLOGY, _TOPOLOGY),
        (Category.TIME, _TIME),
        (Category.INTEGRITY, _INTEGRITY),
        (Category.ISOLATION, _ISOLATION),
    )
    for id, severity, title, remedy in rows
}
"""Every assumption that farside knows, by its id."""
_BY_CODE = {
    "object-missing": "object-missing",
    "object-corrupt": "object-corrupt",
    "age-no-identity": "key-stale",
    "age-malformed": "object-corrupt",
    "no-space": "disk-too-small",
    "tool-missing": "tool-missing",
    "untrusted": "work-dir-untrusted",
}
