"""The stages of a rehearsal, by the names that records, findings and drills give them."""

from enum import StrEnum


class StageName(StrEnum):
    """The stages of a rehearsal, in order."""

    PREFLIGHT = "preflight"
    SNAPSHOT = "snapshot"
    TRANSFER = "transfer"
    DECLARE = "declare"
    KEY_FETCH = "key fetch"
    RESTORE = "restore"
    VERIFY = "verify"
    TEARDOWN = "teardown"
