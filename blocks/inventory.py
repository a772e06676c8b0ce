"""Whose is it? Attributes what a rehearsal used to a failure domain."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from blocks.artifact.mentions import Belongings
from blocks.domain import FailureDomain
from blocks.evidence.uses import Use


@dataclass(frozen=True, slots=True)
class Inventory:
    """What belongs to the source and what to the recovery domain.

    The block that noted a use says where it is configured. That is not where it comes from: a
    recovery store may have an address in the source's network, a tool may lie on one of its mounts.
    What the source owns by network, name, path or credential is the source's, wherever configured.
    """

    source: FailureDomain
    recovery: FailureDomain

    def attributed(self, uses: Iterable[Use]) -> tuple[Use, ...]:
        """The same uses, each with the domain that it belongs to."""
        known = tuple(uses)
        source, recovery = self.source.belongings, self.recovery.belongings
        shared = {
            (str(use.kind), use.name)
            for use in known
            if use.domain == self.source.name and use.kind in ("credential", "certificate")
        }

        def owner(use: Use) -> str:
            if (use.kind, use.name) in shared or _owns(source, use):
                return self.source.name
            if use.domain:
                return use.domain
            return self.recovery.name if _owns(recovery, use) else ""

        return tuple(replace(use, domain=owner(use)) for use in known)


def _owns(domain: Belongings, use: Use) -> bool:
    match use.kind:
        case "address":
            return domain.owns_address(use.name.rpartition(":")[0].strip("[]"))
        case "name":
            return bool(domain.places_in(use.detail or use.name))
        case "tool":
            return bool(domain.paths_in(f"{use.name.partition(':')[2]} {use.detail}"))
        case "credential" | "certificate":
            return bool(domain.paths_in(use.detail))
        case _:
            return False
