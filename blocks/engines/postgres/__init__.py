"""PostgreSQL 15 and later: a physical base backup plus the log, up to the last that crossed.

The base is what `pg_basebackup` streams, the log what `pg_receivewal` receives through a slot of
the rehearsal's own. The engine takes a server's bin directory; any packaging of PostgreSQL will do.
"""

from blocks.engines.postgres.engine import Postgres

__all__ = ["Postgres"]
