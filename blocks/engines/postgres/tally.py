"""What a check has seen, by the codes of PostgreSQL."""

from typing_extensions import override

from blocks.engines.common import tally
from blocks.engines.postgres.psql import SqlError
from blocks.errors import FarsideError

DAMAGED = ("XX001", "XX002")
"""SQLSTATEs data_corrupted and index_corrupted: of all refusals, only these are damage."""


class Tally(tally.Tally):
    """The common tally, which knows what this engine's servers call damage."""

    @override
    def is_damage(self, error: FarsideError) -> bool:
        return isinstance(error, SqlError) and error.sqlstate in DAMAGED
