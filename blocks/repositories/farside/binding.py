"""What binds a backup set to a plan: who signed it, and what it says that it is.

A signature alone shows whose key signed, not of which plan a set is, nor that it is the newest
state of it: an account that writes to a store can copy a set of another plan there, or an older
index.
"""

from dataclasses import dataclass
from typing import TypeVar

from blocks.artifact.manifest import LogIndex, Manifest, ManifestMalformed, SetHeader, verify
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId

Document = TypeVar("Document", Manifest, LogIndex, SetHeader)


class ForeignSet(PermanentError):
    """A signed set of another plan, engine or source, or an older state of this plan's own."""

    finding = FindingId.SET_OF_ANOTHER_PLAN


@dataclass(frozen=True, slots=True)
class Binding:
    """What a plan's own sets say of themselves, and the public keys of which one signed them."""

    plan: str
    engine: str
    source: str
    signers: tuple[str, ...]

    def document(self, kind: type[Document], set_id: str, envelope: bytes) -> Document:
        """The signed document of a set. Raises ManifestForged, ManifestMalformed, ForeignSet."""
        document = verify(envelope, *self.signers)
        if not isinstance(document, kind):
            raise ManifestMalformed("it is a signed document of another kind")
        wanted = {"set": set_id}
        says = {"set": document.set_id}
        if not isinstance(document, LogIndex):
            wanted |= {"plan": self.plan, "engine": self.engine, "source": self.source}
            says |= {"plan": document.plan, "engine": document.engine, "source": document.source}
        if differs := [name for name in wanted if wanted[name] != says[name]]:
            raise ForeignSet(
                ", ".join(
                    f"it is of {name} {says[name]!r}, not {wanted[name]!r}" for name in differs
                )
            )
        return document


@dataclass(frozen=True, slots=True)
class KnownState:
    """The newest state of a set that is known from elsewhere than its store."""

    set_id: str
    log_sequence: int
    manifest_digest: str | None = None
    """Of the manifest that was written; None where only the log is known."""

    def compare(self, digest: str, sequence: int) -> None:
        """Raise ForeignSet if the store holds another manifest, or an older index of the log."""
        if self.manifest_digest not in (None, digest):
            raise self._older("its manifest is not the one that was written")
        if sequence < self.log_sequence:
            raise self._older(
                f"the index of its log is number {sequence}; number {self.log_sequence} has"
                " been there"
            )

    def _older(self, text: str) -> ForeignSet:
        return ForeignSet(f"set {self.set_id}: {text}", operation="verify manifest")
