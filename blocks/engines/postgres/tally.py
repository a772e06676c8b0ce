"""What a check has seen, by the codes of PostgreSQL."""

from blocks.engines.common import tally
from blocks.engines.postgres.psql import SqlError
from blocks.errors import FarsideError

DAMAGED = ("XX001", "XX002")
"""SQLSTATEs data_corrupted and index_corrupted: of all refusals, only these are damage."""


class Tally(tally.Tally):
    """See blocks.engines.common.tally."""

    def is_damage(self, error: FarsideError) -> bool:
        """See blocks.engines.common.tally."""
        return isinstance(error, SqlError) and error.sqlstate in DAMAGED
