"""Objectives, the link, and how recent what was copied is."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.RTO_MISSED,
        Category.TIME,
        Severity.HIGH,
        "recovery took longer than its objective",
        "Shorten the stage that dominates, or agree on an objective that can be kept.",
    ),
    Assumption(
        FindingId.RPO_MISSED,
        Category.TIME,
        Severity.HIGH,
        "more recent data was lost than the objective allows",
        "Ship the log more often or more quickly, or agree on an objective that can be kept.",
    ),
    Assumption(
        FindingId.BANDWIDTH_INSUFFICIENT,
        Category.TIME,
        Severity.HIGH,
        "at production size and the link's rate, recovery does not fit its objective",
        "Widen the link, keep a recent copy on the far side, or make the backups smaller.",
    ),
    Assumption(
        FindingId.COPY_BEHIND,
        Category.TIME,
        Severity.HIGH,
        "the copy on the far side is incomplete or old",
        "Find out why the transfer fell behind, and alert on the age of the newest complete set "
        "in the recovery store.",
    ),
    Assumption(
        FindingId.LOG_NOT_FOLLOWED,
        Category.TIME,
        Severity.CRITICAL,
        "the following of the source's log ended before it was to",
        "Look at the receiver's last words in the evidence, and at the source's and the backup "
        "host's logs; then rehearse again.",
    ),
    Assumption(
        FindingId.COPY_IS_COLD,
        Category.TIME,
        Severity.CRITICAL,
        "objects cannot be read at once: they are in an archive storage class",
        "Keep the sets that recovery needs in a storage class that is readable at once, or put "
        "the retrieval time into the RTO.",
    ),
    Assumption(
        FindingId.USABLE_NOT_RESTORED,
        Category.TIME,
        Severity.HIGH,
        "the service is up, but not yet fit for use",
        "Plan warming, index builds and replica catch-up into the recovery and its RTO.",
    ),
    Assumption(
        FindingId.MANY_AT_ONCE,
        Category.TIME,
        Severity.HIGH,
        "the fleet does not recover in time together",
        "Set an order of recovery, and size links, stores and hosts for concurrent restores.",
    ),
)
