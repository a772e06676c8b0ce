"""What a check has seen, by the codes of MariaDB."""

from typing_extensions import override

from blocks.engines.common import tally
from blocks.engines.galera.mariadb import SqlError
from blocks.errors import FarsideError

DAMAGED = frozenset(
    {
        *(29, 1017),  # a file is missing
        *(1033, 1034, 1035),  # the definition's file, or a key file, holds what none does
        *(1194, 1195),  # marked as crashed
        *(1712, 1877),  # an index, a table of InnoDB
        *(1808, 1812, 1814, 1932),  # the file of a tablespace is another's, or missing
    }
)
"""Error numbers of the server: of all refusals, only these are damage."""


class Tally(tally.Tally):
    """Knows the server's codes of damage."""

    @override
    def is_damage(self, error: FarsideError) -> bool:
        return isinstance(error, SqlError) and error.number in DAMAGED


def unopened(label: str, number: int) -> str:
    """Why a table is compared with nothing."""
    return f"{label}: the source could not open it either (error {number})"
