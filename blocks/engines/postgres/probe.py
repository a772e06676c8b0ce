"""A write that shows that a server takes writes, and leaves nothing."""

from zlib import crc32

from blocks.engines.postgres.psql import literal

_PROBES = 4_000_000_000
"""Numbers of large objects from here on, which servers give away last, are for write_probe."""


def write_probe(rehearsal_id: str) -> tuple[str, str, str]:
    """SQL that commits a row, reads it in another session, and removes it.

    A large object: a table would be DDL, which a site's event triggers may forbid.
    """
    number = _PROBES + crc32(rehearsal_id.encode()) % (2**32 - _PROBES)
    return (
        f"SELECT lo_from_bytea({number}, {literal(rehearsal_id)}::bytea);",
        f"SELECT convert_from(lo_get({number}), 'UTF8')",
        f"SELECT lo_unlink({number});",
    )
