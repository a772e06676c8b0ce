"""The stages of a rehearsal, by the names that records, findings and drills give them."""

from enum import StrEnum


class StageName(StrEnum):
    """The stages of a rehearsal, in order."""

    PREFLIGHT = "preflight"
    """Looks at both domains before anything is touched."""
    SNAPSHOT = "snapshot"
    """Takes a backup set into the source's store; skipped where a retained set is rehearsed."""
    TRANSFER = "transfer"
    """Brings it into the recovery domain's store."""
    DECLARE = "declare"
    """Loses the source: raises the fence, and proves it. The RTA clock starts."""
    KEY_FETCH = "key fetch"
    """Fetches the private key from the recovery domain's vault."""
    RESTORE = "restore"
    """Restores the set on the recovery hosts, isolated."""
    VERIFY = "verify"
    """Proves that the service is usable and whole. The RTA clock ends."""
    TEARDOWN = "teardown"
    """Removes what the rehearsal made. It always runs."""
