"""Backup sets in a store: written in the source, copied across, read in the recovery domain.

sets/PLAN/SET_ID/manifest.json      signed; a set without one is unfinished
sets/PLAN/SET_ID/header.json        signed; the manifest in short, for lists
sets/PLAN/SET_ID/log.json           signed; what of the log has been stored so far
sets/PLAN/SET_ID/base.tar.zst.age.000, ...
sets/PLAN/SET_ID/FOLDER/...         the log, where the engine has one and names the folder
"""

import re
from collections.abc import Callable

from blocks.artifact.manifest import ManifestForged, ManifestMalformed
from blocks.repositories.farside.binding import Binding, Document, ForeignSet
from blocks.stores.store import ObjectStore

MANIFEST, LOG, HEADER = "manifest.json", "log.json", "header.json"
SET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
Moved = Callable[[int, str], None]
"""Told how many bytes of which object have moved so far."""


def stem(name: str) -> str:
    """The log segment that an object holds a state of."""
    return name.partition(".partial-")[0].removesuffix(".zst.age")


def prefix_of(plan: str, set_id: str) -> str:
    """What the keys of all objects of a set begin with."""
    return f"sets/{plan}/{set_id}/"


def signed_document(
    store: ObjectStore, binding: Binding, kind: type[Document], set_id: str, name: str
) -> Document:
    """A document of a set whose signature and plan are as `binding` wants them.

    Raises ManifestForged, ManifestMalformed, ForeignSet, and what the store raises.
    """
    key = prefix_of(binding.plan, set_id) + name
    try:
        return binding.document(kind, set_id, store.get(key))
    except (ManifestForged, ManifestMalformed, ForeignSet) as error:
        raise type(error)(
            f"{key}: {error.message}",
            operation="verify manifest",
            domain=store.domain,
            hint=error.hint or "do not restore this set; find out who wrote to the store",
            subject=f"set {set_id}",
        ) from None
