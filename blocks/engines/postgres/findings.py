"""Assumptions that only PostgreSQL can break."""

from enum import StrEnum

from blocks.evidence.catalogue import Assumption, Category, Severity, register


class PostgresFinding(StrEnum):
    """Ids of the findings that only PostgreSQL has."""

    LOCALE_CHANGED = "locale-changed"
    LOCALE_MISSING = "locale-missing"
    SETTING_TOO_LOW = "setting-too-low"
    LOG_GAP = "log-gap"
    LOG_RETENTION_UNBOUNDED = "log-retention-unbounded"
    SOURCE_NOT_ARCHIVING = "source-not-archiving"
    SOURCE_AT_LIMIT = "source-at-limit"
    LOG_REPLAY_SHORT = "log-replay-short"


register(
    Assumption(
        PostgresFinding.LOCALE_CHANGED,
        Category.TOOLING,
        Severity.CRITICAL,
        "text sorts differently on the recovery side",
        "Use the same C library and ICU versions on both sides, or plan a REINDEX of every text "
        "index into the RTO.",
    ),
    Assumption(
        PostgresFinding.LOCALE_MISSING,
        Category.TOOLING,
        Severity.CRITICAL,
        "a locale or time zone that data or settings name is not on the recovery side",
        "Install the locale (Debian: locales; RHEL: glibc-langpack-*) or the time zones on the "
        "recovery host, or change what names them.",
    ),
    Assumption(
        PostgresFinding.SETTING_TOO_LOW,
        Category.TOOLING,
        Severity.CRITICAL,
        "a setting on the recovery side is too low for the replay",
        "Raise the setting on the recovery side to at least the source's value.",
    ),
    Assumption(
        PostgresFinding.LOG_GAP,
        Category.TIME,
        Severity.CRITICAL,
        "the log is broken before the recovery target",
        "Find out why the segment is missing, take a new base backup at once, and alert on the "
        "archiver's failures.",
    ),
    Assumption(
        PostgresFinding.LOG_RETENTION_UNBOUNDED,
        Category.TIME,
        Severity.INFO,
        "nothing limits what the source keeps for a replication slot",
        "Set max_slot_wal_keep_size to less than the free space of the source's log directory; "
        "without it a short interruption may end a backup.",
    ),
    Assumption(
        PostgresFinding.SOURCE_NOT_ARCHIVING,
        Category.TIME,
        Severity.HIGH,
        "the source's own archiving does not work: its log piles up, and its backups end",
        "Mend archive_command (or archive_library) at the source, and alert on "
        "pg_stat_archiver.failed_count and on the age of the newest archived segment.",
    ),
    Assumption(
        PostgresFinding.SOURCE_AT_LIMIT,
        Category.TIME,
        Severity.HIGH,
        "the source has too few places left for a backup: its own clients would go without",
        "Raise the setting that the evidence names, or end what holds its places (idle sessions, "
        "slots that nobody reads); then rehearse again.",
        stops=True,
    ),
    Assumption(
        PostgresFinding.LOG_REPLAY_SHORT,
        Category.INTEGRITY,
        Severity.CRITICAL,
        "the log was not replayed to the end that crossed",
        "Find the record at the position that the evidence names (pg_waldump); take a new base "
        "backup, and look at the disk and the memory of the host that wrote the log.",
    ),
)
