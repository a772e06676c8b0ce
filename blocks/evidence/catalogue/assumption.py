"""What a row of the catalogue holds, and the ids of the general ones."""

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


class FindingId(StrEnum):
    """Ids of the general findings; an engine's own are in its package."""

    KEY_ONLY_IN_SOURCE = "key-only-in-source"
    SEALED_TO_SOURCE_ONLY = "sealed-to-source-only"
    KEY_STALE = "key-stale"
    KEY_ROTATED_AWAY = "key-rotated-away"
    KEY_CHAIN_IN_SOURCE = "key-chain-in-source"
    APP_SECRET_MISSING = "app-secret-missing"
    SECRET_EXPOSED = "secret-exposed"
    LOGIN_MISSING = "login-missing"
    CA_UNKNOWN = "ca-unknown"
    CA_IN_SOURCE = "ca-in-source"
    SSH_TRUST_MISSING = "ssh-trust-missing"
    CREDENTIAL_REFUSED = "credential-refused"
    CREDENTIAL_FROM_SOURCE = "credential-from-source"

    TOOL_MISSING = "tool-missing"
    ENGINE_VERSION = "engine-version"
    EXTENSION_MISSING = "extension-missing"
    LIBRARY_PRELOADED = "library-preloaded"
    TOOL_FETCHED_FROM_SOURCE = "tool-fetched-from-source"
    TOOL_LINKED_TO_SOURCE = "tool-linked-to-source"
    CONTROL_PLANE_IN_SOURCE = "control-plane-in-source"
    DISK_TOO_SMALL = "disk-too-small"
    CLOCK_SKEW = "clock-skew"
    STORE_UNREACHABLE = "store-unreachable"
    STORE_NOT_WRITABLE = "store-not-writable"
    HOST_UNREACHABLE = "host-unreachable"

    ADDRESS_HARD_CODED = "address-hard-coded"
    PATH_HARD_CODED = "path-hard-coded"
    NAME_RESOLVES_TO_SOURCE = "name-resolves-to-source"
    STORAGE_FROM_SOURCE = "storage-from-source"
    ACCESS_FROM_SOURCE_ONLY = "access-from-source-only"
    NODE_COUNT_DIFFERS = "node-count-differs"
    NODE_IDENTITY_REUSED = "node-identity-reused"
    PEER_LIST_STALE = "peer-list-stale"
    PLACEMENT_DROPPED = "placement-dropped"
    PORT_TAKEN = "port-taken"
    WORK_DIR_UNTRUSTED = "work-dir-untrusted"
    TARGET_OCCUPIED = "target-occupied"
    STORE_REGION_HARD_CODED = "store-region-hard-coded"
    USE_UNATTRIBUTED = "use-unattributed"
    SOURCE_USED = "source-used"

    RTO_MISSED = "rto-missed"
    RPO_MISSED = "rpo-missed"
    BANDWIDTH_INSUFFICIENT = "bandwidth-insufficient"
    COPY_BEHIND = "copy-behind"
    LOG_NOT_FOLLOWED = "log-not-followed"
    COPY_IS_COLD = "copy-is-cold"
    USABLE_NOT_RESTORED = "usable-not-restored"
    MANY_AT_ONCE = "many-at-once"

    OBJECT_CORRUPT = "object-corrupt"
    OBJECT_MISSING = "object-missing"
    MANIFEST_FORGED = "manifest-forged"
    SET_OF_ANOTHER_PLAN = "set-of-another-plan"
    INCOMPLETE_RESTORE = "incomplete-restore"
    INDEX_CORRUPT = "index-corrupt"
    PAGE_CORRUPT = "page-corrupt"
    CHECK_FAILED = "check-failed"
    BACKUP_FAILED = "backup-failed"
    RESTORE_FAILED = "restore-failed"

    RECOVERY_IS_SOURCE = "recovery-is-source"
    ARCHIVE_INTO_PRODUCTION = "archive-into-production"
    RESTORED_JOBS_FIRE = "restored-jobs-fire"
    SERVICE_MORE_OPEN = "service-more-open"
    FENCE_LEAKS = "fence-leaks"
    FENCE_STAYS = "fence-stays"
    LEFTOVERS = "leftovers"


@dataclass(frozen=True, slots=True)
class Assumption:
    """A row of the catalogue: what a broken assumption is called and what mends it."""

    id: str
    category: Category
    severity: Severity
    title: str
    remedy: str
    stops: bool = False
    """Met in preflight, it ends the rehearsal there: it endangers production, or leaves no safe
    fence. All else is learned from, or ends a restore before it begins; what a single case makes
    unsafe (another rehearsal on the target, a fence that cannot be raised, farside inside the
    source) preflight puts among its `ends` itself."""
    isolation: bool = False
    """The restored service can reach production, or be reached: never accepted wholesale."""
