"""Whether what comes back is all of it, and right."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.OBJECT_CORRUPT,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "an object is not what was written",
        "Copy the object again from another store if one has it; otherwise the set is lost: take "
        "a new backup, and look for the fault in the store or on the way.",
    ),
    Assumption(
        FindingId.OBJECT_MISSING,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "an object that the manifest names is not in the recovery store",
        "Transfer the set again, and compare the store's lifecycle rules with the retention that "
        "recovery needs.",
    ),
    Assumption(
        FindingId.MANIFEST_FORGED,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "the manifest's signature is not the source's",
        "Treat the store as compromised until it is explained. If the signing key was changed on "
        "purpose, pin the new public key in the plan.",
    ),
    Assumption(
        FindingId.SET_OF_ANOTHER_PLAN,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "a set in the recovery store is another plan's, or an older state of itself",
        "Do not restore it. Find out who copied or replaced it there, remove it, and give each "
        "plan its own signing key.",
    ),
    Assumption(
        FindingId.INCOMPLETE_RESTORE,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "what came back is not all of it",
        "Compare the restored database with the manifest as the evidence says; find out what the "
        "backup leaves out.",
    ),
    Assumption(
        FindingId.INDEX_CORRUPT,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "an index disagrees with its table",
        "REINDEX it, then find the cause: a changed collation, a faulty disk, or a source that "
        "was corrupt already.",
    ),
    Assumption(
        FindingId.PAGE_CORRUPT,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "a page fails its checksum",
        "Check the source's own pages; if they are sound, check the recovery host's disk and "
        "memory, and restore again.",
    ),
    Assumption(
        FindingId.CHECK_FAILED,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "the plan's own check gives another answer on the restored service",
        "Compare expected and actual in the record; until it is explained, the backup does not "
        "bring back what the business needs.",
    ),
    Assumption(
        FindingId.BACKUP_FAILED,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "no backup could be taken",
        "Mend what the evidence names on the source side: today's data has no way across.",
    ),
    Assumption(
        FindingId.RESTORE_FAILED,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "the restore did not succeed",
        "Mend what the evidence names on the recovery host, then rehearse again.",
    ),
)
