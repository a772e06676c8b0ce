"""Several fences as one."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from blocks.errors import FarsideError
from blocks.fences.command import CommandFence
from blocks.fences.fence import Fence, Gap, Observed, together
from blocks.fences.nftables import NftablesFence


class SeveralFences(Fence):
    """Fences one behind the other; the first one raised is the declaration."""

    _block_type_name: ClassVar[str | None] = "farside several fences"
    _block_type_slug: ClassVar[str | None] = "farside-several-fences"
    _description: ClassVar[str | None] = "Cuts a failure domain off in more than one way."

    kind: Literal["several"] = Field(
        default="several", description="several: fences of other kinds, one behind the other."
    )
    fences: list[Annotated[CommandFence | NftablesFence, Field(discriminator="kind")]] = Field(
        min_length=1,
        description="The fences, raised in this order and lifted in the reverse one. The first one "
        "raised is the declaration.",
    )

    def check(self, gap: Gap) -> None:
        """See Fence."""
        for fence in self.fences:
            fence.check(gap)

    def remember(self, gap: Gap) -> None:
        """See Fence."""
        for fence in self.fences:
            fence.remember(gap)

    def cut(self, gap: Gap) -> datetime:
        """See Fence."""
        return min([fence.cut(gap) for fence in self.fences])

    def lift(self, gap: Gap) -> frozenset[str]:
        """See Fence. All are tried; of several failures, that of the one raised first is told."""
        failure: FarsideError | None = None
        holders: frozenset[str] = frozenset()
        for fence in reversed(self.fences):
            try:
                holders |= fence.lift(gap)
            except FarsideError as error:
                failure = error
        if failure is not None:
            raise failure
        return holders

    def attempts(self, gap: Gap) -> Observed:
        """See Fence."""
        return together([fence.attempts(gap) for fence in self.fences])

    @property
    def marks(self) -> frozenset[str]:
        """See Fence."""
        return frozenset().union(*(fence.marks for fence in self.fences))

    @property
    def tells(self) -> bool:
        """See Fence: each sees what the others may not."""
        return any(fence.tells for fence in self.fences)

    @property
    def untried(self) -> tuple[str, ...]:
        """See Fence."""
        return tuple(name for fence in self.fences for name in fence.untried)

    @property
    def shuts_names(self) -> bool:
        """See Fence."""
        return any(fence.shuts_names for fence in self.fences)

    @property
    def is_on_hosts(self) -> bool:
        """See Fence."""
        return all(fence.is_on_hosts for fence in self.fences)
