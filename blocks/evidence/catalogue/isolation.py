"""What keeps a rehearsal and production apart."""

from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

ASSUMPTIONS = (
    Assumption(
        FindingId.RECOVERY_IS_SOURCE,
        Category.ISOLATION,
        Severity.CRITICAL,
        "a machine of the recovery side is one of the source's, or at work for it",
        "Correct the address in the plan, or rehearse on machines that do no work for the source: "
        "a restore there, or its fence, would hit production.",
        stops=True,
        isolation=True,
    ),
    Assumption(
        FindingId.ARCHIVE_INTO_PRODUCTION,
        Category.ISOLATION,
        Severity.CRITICAL,
        "the restored instance archives towards production",
        "Clear the archiving settings in the restored configuration before the first start.",
        isolation=True,
    ),
    Assumption(
        FindingId.RESTORED_JOBS_FIRE,
        Category.ISOLATION,
        Severity.CRITICAL,
        "a scheduler, subscription, slot or hook is awake on the restored service",
        "Disable it during the restore, before the service may reach anything.",
        isolation=True,
    ),
    Assumption(
        FindingId.SERVICE_MORE_OPEN,
        Category.ISOLATION,
        Severity.CRITICAL,
        "the restored service asks its clients for less than the source did",
        "Have the restored service ask for what the source asks for (user and password, client "
        "certificate, TLS), before anything can reach it.",
        isolation=True,
    ),
    Assumption(
        FindingId.FENCE_LEAKS,
        Category.ISOLATION,
        Severity.CRITICAL,
        "the source can still be reached from the recovery side",
        "Close the route that the evidence names; without a fence the rehearsal proves nothing.",
        stops=True,
        isolation=True,
    ),
    Assumption(
        FindingId.FENCE_STAYS,
        Category.ISOLATION,
        Severity.CRITICAL,
        "the fence could not be lifted after the rehearsal",
        "Lift it by hand at once, with the plan's lift_argv, then run `python -m flows.sweep`: "
        "until then the recovery side is not ready for the real thing.",
    ),
    Assumption(
        FindingId.LEFTOVERS,
        Category.ISOLATION,
        Severity.MEDIUM,
        "something of a rehearsal remains",
        "Run `python -m flows.sweep`, and remove by hand what it reports as remaining.",
    ),
)
