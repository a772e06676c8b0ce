"""What a backup is made of."""

from enum import StrEnum


class Material(StrEnum):
    """What a repository provides, and an engine restores from: a closed set."""

    DATA_DIRECTORY = "data directory with log"
    BASE_TAR = "base tar with log"
    PG_DUMP_CUSTOM = "pg_dump, custom"
    PG_DUMP_DIRECTORY = "pg_dump, directory"
    PG_DUMP_PLAIN = "pg_dump, plain"
    PG_DUMPALL = "pg_dumpall"
    ETCD_SNAPSHOT = "etcd snapshot"
    MARIADB_BACKUP = "mariadb-backup"
    MARIADB_DUMP = "mariadb-dump"
    RDB = "RDB"
    ARCHIVE = "plain archive"
