"""Whose is it? Attributes what a rehearsal used to a failure domain."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from blocks.domain import FailureDomain
from blocks.evidence.uses import Use
from blocks.ownership import Belongings


@dataclass(frozen=True, slots=True)
class Inventory:
    """What belongs to the source and what to the recovery domain.

    The block that noted a use says where it is configured. That is not where it comes from: a
    recovery store may have an address in the source's network, a tool may lie on one of its mounts.
    What the source owns by network, name or path is the source's, wherever it is configured.
    """

    source: FailureDomain
    recovery: FailureDomain

    def attributed(self, uses: Iterable[Use]) -> tuple[Use, ...]:
        """The same uses, each with the domain that it belongs to."""
        source, recovery = self.source.belongings, self.recovery.belongings

        def owner(use: Use) -> str:
            if _owns(source, use):
                return self.source.name
            if use.domain:
                return use.domain
            return self.recovery.name if _owns(recovery, use) else ""

        return tuple(replace(use, domain=owner(use)) for use in uses)


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
