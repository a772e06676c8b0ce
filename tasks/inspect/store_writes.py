"""The source's store before the loss and after: nothing that was restored may write there."""

from itertools import islice

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from blocks.stores.store import ObjectStore
from tasks.context import Listing, Rehearsal
from tasks.lease import STORED

_MOST = 100_000
_OWN = ("sets/", STORED)
"""Where farside itself writes, other plans' rehearsals included."""


def listing(store: ObjectStore) -> Listing | None:
    """What is stored next to sets and leases; None if it cannot be listed, or is too much."""
    try:
        infos = list(islice(store.objects(), _MOST + 1))
    except FarsideError:
        return None
    if len(infos) > _MOST:
        return None
    return {i.key: (i.size, i.modified) for i in infos if not i.key.startswith(_OWN)}


def changed(rehearsal: Rehearsal) -> list[Finding]:
    """Objects that have appeared or changed in the source's store since it was lost."""
    before, store = rehearsal.source_listing, rehearsal.source.store
    after = listing(store) if before is not None else None
    if before is None or after is None:
        rehearsal.source_listing = None
        return []
    new = sorted(key for key, info in after.items() if before.get(key) != info)
    if not new:
        return []
    text = f"{len(new)} objects were written during the rehearsal: {', '.join(new[:5])}"
    return [
        finding(
            FindingId.ARCHIVE_INTO_PRODUCTION, f"{store.domain} store", text, StageName.TEARDOWN
        )
    ]
