"""Addresses, names, paths and the shape of the cluster."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.ADDRESS_HARD_CODED,
        Category.TOPOLOGY,
        Severity.HIGH,
        "configuration or data names an address of the source",
        "Replace the address by a name that the recovery domain resolves itself, or make the "
        "change part of the recovery plan.",
    ),
    Assumption(
        FindingId.PATH_HARD_CODED,
        Category.TOPOLOGY,
        Severity.HIGH,
        "configuration names a path of the old host",
        "Use paths that exist in both domains, or map them in the plan.",
    ),
    Assumption(
        FindingId.NAME_RESOLVES_TO_SOURCE,
        Category.TOPOLOGY,
        Severity.HIGH,
        "a name used on the recovery side leads back to the source",
        "Serve the name from resolvers of the recovery domain, with the recovery side's address.",
    ),
    Assumption(
        FindingId.STORAGE_FROM_SOURCE,
        Category.TOPOLOGY,
        Severity.HIGH,
        "a directory or file in use on the recovery side is mounted from, or linked into, the "
        "source domain",
        "Give the recovery host its own storage; findmnt -T and readlink -f show where a path "
        "leads.",
    ),
    Assumption(
        FindingId.ACCESS_FROM_SOURCE_ONLY,
        Category.TOPOLOGY,
        Severity.HIGH,
        "the source's access rules let the application in from the source's networks only",
        "Add rules for the recovery domain's networks to the source's configuration now, so that "
        "what is taken over on the day lets the application in.",
    ),
    Assumption(
        FindingId.NODE_COUNT_DIFFERS,
        Category.TOPOLOGY,
        Severity.CRITICAL,
        "the cluster does not come up with the number of nodes that the recovery domain has",
        "Write down, and rehearse, the shape that the recovery domain really has.",
    ),
    Assumption(
        FindingId.NODE_IDENTITY_REUSED,
        Category.TOPOLOGY,
        Severity.CRITICAL,
        "a restored node carries an identity of the old cluster",
        "Give the restored cluster a new identity before it may connect to any other machine.",
    ),
    Assumption(
        FindingId.PEER_LIST_STALE,
        Category.TOPOLOGY,
        Severity.HIGH,
        "a node waits for a peer that is gone",
        "Rewrite membership from the recovery domain's inventory during the restore.",
    ),
    Assumption(
        FindingId.PLACEMENT_DROPPED,
        Category.TOPOLOGY,
        Severity.HIGH,
        "replicas are not where they should be",
        "Define placement for the recovery domain's own zones and re-apply it after the restore.",
    ),
    Assumption(
        FindingId.PORT_TAKEN,
        Category.TOPOLOGY,
        Severity.CRITICAL,
        "a port that the restored service needs is taken",
        "Stop what listens there, or give the target another port in the plan.",
    ),
    Assumption(
        FindingId.WORK_DIR_UNTRUSTED,
        Category.TOPOLOGY,
        Severity.CRITICAL,
        "other accounts or machines could write to farside's directory on a host",
        "Name a work_dir on a disk of the host's own that the account owns, to which no other "
        "account can write, with no link on the way; ~/.farside, the default, is one where homes "
        "are not shared.",
        stops=True,
    ),
    Assumption(
        FindingId.TARGET_OCCUPIED,
        Category.TOPOLOGY,
        Severity.CRITICAL,
        "something lives in the target directory",
        "Name an empty directory in the plan, or move away what is there; farside never "
        "overwrites. What an earlier rehearsal left is removed by `python -m flows.sweep`.",
    ),
    Assumption(
        FindingId.STORE_REGION_HARD_CODED,
        Category.TOPOLOGY,
        Severity.HIGH,
        "bucket, region or endpoint are the source domain's",
        "Name the recovery domain's own bucket, region and endpoint.",
        stops=True,
        isolation=True,
    ),
    Assumption(
        FindingId.USE_UNATTRIBUTED,
        Category.TOPOLOGY,
        Severity.INFO,
        "something was used that belongs to no domain of the plan",
        "Say in the plan whose it is: add its network, name or path to the domain that it is lost "
        "with, or learn that it is in neither.",
    ),
    Assumption(
        FindingId.SOURCE_USED,
        Category.TOPOLOGY,
        Severity.HIGH,
        "something of the source was used, or asked for, after it was lost",
        "Give the recovery side its own copy of what the evidence names; with the source gone for "
        "good, this call hangs or fails.",
        stops=True,
        isolation=True,
    ),
)
