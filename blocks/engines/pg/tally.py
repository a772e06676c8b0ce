"""What a check has seen, by the codes of PostgreSQL."""

from blocks.engines import tally
from blocks.engines.pg.psql import SqlError
from blocks.errors import FarsideError

DAMAGED = ("XX001", "XX002")
"""SQLSTATEs data_corrupted and index_corrupted: of all refusals, only these are damage."""


class Tally(tally.Tally):
    """See blocks.engines.tally."""

    def is_damage(self, error: FarsideError) -> bool:
        """See blocks.engines.tally."""
        return isinstance(error, SqlError) and error.sqlstate in DAMAGED
