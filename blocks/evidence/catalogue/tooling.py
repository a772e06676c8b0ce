"""Programs, versions, disks, clocks, and what else must be there."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.TOOL_MISSING,
        Category.TOOLING,
        Severity.CRITICAL,
        "a program that the restore calls is not on the recovery host",
        "Install it on the recovery host, from packages that do not come from the source domain.",
    ),
    Assumption(
        FindingId.ENGINE_VERSION,
        Category.TOOLING,
        Severity.CRITICAL,
        "the recovery side runs a version that cannot read the set",
        "Install the major version named in the manifest on the recovery host, and upgrade both "
        "domains together from now on.",
    ),
    Assumption(
        FindingId.EXTENSION_MISSING,
        Category.TOOLING,
        Severity.CRITICAL,
        "an extension's library is not installed on the recovery side",
        "Install the package of the extension on the recovery host, in the source's version.",
    ),
    Assumption(
        FindingId.LIBRARY_PRELOADED,
        Category.TOOLING,
        Severity.HIGH,
        "the configuration preloads a library that is not there",
        "Install the library on the recovery host, or decide that the restored service runs "
        "without it and say so in the recovery plan.",
    ),
    Assumption(
        FindingId.TOOL_FETCHED_FROM_SOURCE,
        Category.TOOLING,
        Severity.HIGH,
        "a tool, package, image or script was fetched from the source domain",
        "Install it ahead of time, or mirror it into the recovery domain.",
    ),
    Assumption(
        FindingId.TOOL_LINKED_TO_SOURCE,
        Category.TOOLING,
        Severity.HIGH,
        "a library, interpreter, module or link that a tool needs leads into the source domain",
        "Install the tool on the recovery host with all that it loads; ldd, the script's first "
        "line and readlink -f show what leads where.",
    ),
    Assumption(
        FindingId.CONTROL_PLANE_IN_SOURCE,
        Category.TOOLING,
        Severity.HIGH,
        "the orchestrator, its database or its workers are in the source domain",
        "Run farside and its Prefect server outside the source domain, best in the recovery one.",
    ),
    Assumption(
        FindingId.DISK_TOO_SMALL,
        Category.TOOLING,
        Severity.CRITICAL,
        "the restored data does not fit on the recovery host",
        "Give the target at least the space that the evidence asks for.",
    ),
    Assumption(
        FindingId.CLOCK_SKEW,
        Category.TOOLING,
        Severity.HIGH,
        "clocks disagree",
        "Run a time service on the host, from a time source outside the source domain.",
    ),
    Assumption(
        FindingId.STORE_UNREACHABLE,
        Category.TOOLING,
        Severity.CRITICAL,
        "the object store that the recovery needs does not answer",
        "Start the store, or correct its endpoint in the plan; check the route from where farside "
        "and the recovery hosts run.",
    ),
    Assumption(
        FindingId.STORE_NOT_WRITABLE,
        Category.TOOLING,
        Severity.CRITICAL,
        "a store refuses a request that storing a backup set needs",
        "Allow the request that the evidence names, in the bucket's policy and in what the store "
        "demands of requests: sets are put as objects and in parts, each with its Content-MD5.",
    ),
    Assumption(
        FindingId.HOST_UNREACHABLE,
        Category.TOOLING,
        Severity.CRITICAL,
        "a host that the recovery needs cannot be reached",
        "Start the host, or correct its address and port in the plan; check the route from where "
        "farside runs.",
    ),
)
