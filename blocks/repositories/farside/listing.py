"""Which sets a store holds, and which one a rehearsal takes."""

import random
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blocks.artifact.manifest import (
    Manifest,
    ManifestForged,
    ManifestMalformed,
    SetHeader,
    header_of,
)
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.repositories.farside.binding import Binding, ForeignSet
from blocks.repositories.farside.layout import HEADER, MANIFEST, SET_ID, prefix_of, signed_document
from blocks.stores.store import ObjectMissing, ObjectStore
from blocks.workers import Workers

_AT_ONCE = 8
"""Headers that are read side by side: a store answers each in milliseconds, from afar in more."""


class NoSuchSet(PermanentError):
    """The recovery store retains no such set."""

    finding = FindingId.COPY_BEHIND


@dataclass(frozen=True, slots=True)
class Chosen:
    """The set that a selection led to, and how."""

    set_id: str
    how: str
    passed_over: tuple[FarsideError, ...] = ()
    """What is wrong with sets that came before it, and are none of this plan's."""


def set_ids(store: ObjectStore, plan: str) -> list[str]:
    """Ids of what may be complete sets of a plan in a store, oldest first: names, unproven."""
    return [set_id for set_id, _ in _complete(store, plan)]


def _complete(store: ObjectStore, plan: str) -> list[tuple[str, int]]:
    """The same, each with the size of its manifest."""
    prefix, found = f"sets/{plan}/", list[tuple[str, int]]()
    for info in store.objects(prefix):
        set_id, slash, name = info.key.removeprefix(prefix).partition("/")
        if slash and name == MANIFEST and SET_ID.fullmatch(set_id):
            found.append((set_id, info.size))
    return sorted(found)


def headers(store: ObjectStore, binding: Binding) -> Iterator[tuple[str, SetHeader | FarsideError]]:
    """Each complete set's id and header, or why it has none that holds; oldest first.

    Read side by side, and small: hundreds of sets take seconds.
    """

    def read(place: tuple[str, int]) -> tuple[str, SetHeader | FarsideError]:
        set_id, size = place
        try:
            try:
                header = signed_document(store, binding, SetHeader, set_id, HEADER)
            except ObjectMissing:  # of a set from before there were headers
                return set_id, header_of(
                    signed_document(store, binding, Manifest, set_id, MANIFEST), size
                )
            if header.manifest_bytes == size:
                return set_id, header
            text = f"its manifest has {size} bytes, its header says {header.manifest_bytes}"
            return set_id, ManifestForged(text, domain=store.domain)
        except (ManifestForged, ManifestMalformed, ForeignSet, ObjectMissing) as error:
            return set_id, error

    with Workers(_AT_ONCE, "headers") as pool:
        yield from pool.map(read, _complete(store, binding.plan))


def choose(store: ObjectStore, binding: Binding, select: str) -> Chosen:
    """The set that `latest`, `oldest`, `random` or an id stands for: a proven one.

    Anyone who may write to the store can add a name: what is not signed, or is another plan's, is
    passed over. Raises NoSuchSet, and what is wrong with the only ones that there are.
    """
    ids, how = set_ids(store, binding.plan), select
    if select == "random":
        seed = secrets.randbelow(10**6)
        wanted, how = random.Random(seed).sample(ids, len(ids)), f"random, seed {seed}"
    else:
        wanted = {"latest": ids[::-1], "oldest": ids}.get(select, [select] if select in ids else [])
    refused: list[FarsideError] = []
    for set_id in wanted:
        try:
            signed_document(store, binding, Manifest, set_id, MANIFEST)
        except (ManifestForged, ManifestMalformed, ForeignSet) as error:
            refused.append(error)
        else:
            return Chosen(set_id, how, tuple(refused))
    if refused:
        raise refused[0]
    raise NoSuchSet(
        f"no set {select!r} of plan {binding.plan}; retained: {', '.join(ids) or 'none'}",
        operation="select",
        domain=store.domain,
        hint="rehearse with --select fresh once, or choose a set that is there",
    )


def unfinished(store: ObjectStore, plan: str) -> list[str]:
    """Ids of sets that have objects but no manifest: a rehearsal writes them now, or died."""
    prefix = f"sets/{plan}/"
    ids = {info.key.removeprefix(prefix).partition("/")[0] for info in store.objects(prefix)}
    return sorted(ids - set(set_ids(store, plan)))


def discard_unfinished(store: ObjectStore, plan: str, set_id: str) -> list[str]:
    """Remove a set that never got its manifest, and unfinished uploads; returns the keys."""
    prefix = prefix_of(plan, set_id)
    for upload in store.uploads(prefix):
        store.abort_upload(upload.key, upload.upload_id)
    if store.head(prefix + MANIFEST) is not None:
        return []
    keys = [info.key for info in store.objects(prefix)]
    store.remove(keys)
    return keys


def retract(store: ObjectStore, plan: str, set_ids: Iterable[str]) -> None:
    """Make unfinished sets of complete ones, all at once: from here on nothing restores them.

    Their other objects are `discard_unfinished`'s, also where this process does not come to it.
    """
    store.remove([prefix_of(plan, set_id) + MANIFEST for set_id in set_ids])
