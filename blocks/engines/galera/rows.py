"""Rows of a restored cluster's tables that may name another failure domain, read as text.

By an account of its own, which may read, and nothing else: it is made for that, and dropped.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pydantic import SecretStr

from blocks.engines.checks import listed
from blocks.engines.galera import survey
from blocks.engines.galera.facts import TableName, local
from blocks.engines.galera.mariadb import Mariadb, identifier, literal
from blocks.engines.galera.survey import of_each
from blocks.errors import FarsideError
from blocks.ownership import Belongings

ROWS_MOST = 10_000
"""Rows of a table that are read, of those that may name the source."""
CHARACTERS_MOST = 2**20
"""Characters of a value that are read."""
LOCK_SECONDS = 10
_TEXT = (
    *("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json", "enum", "set"),
    *("inet4", "inet6"),
)
_BINARY = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_GRACE_SECONDS = 15.0
"""How much longer the client may take than the statement, which has a limit of its own."""
_COLUMNS = """
SELECT JSON_ARRAY(TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE))
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name}
ORDER BY ORDINAL_POSITION
"""

Texts = list[tuple[str, str]]


def texts(node: Mariadb, foreign: Belongings, seconds: float, unread: list[str]) -> Texts:
    """Columns of tables, each with a value that may mention what is `foreign`; small tables first.

    What is not looked at is added to `unread`: what lies beyond the limits, and binary columns.
    """
    found, late, until = Texts(), list[str](), time.monotonic() + seconds
    tables = sorted(local(survey.tables(node)), key=lambda item: item.rows or 0)
    columns = dict[tuple[str, str], list[tuple[str, str]]]()
    for schema, of_table, column, kind in of_each(node, _COLUMNS, tables):
        columns.setdefault((schema, of_table), []).append((column, kind))
    with _reader(node) as reader:
        for table in tables:
            name = table.label
            known = columns.get((table.schema, table.name), [])
            if binary := [column for column, kind in known if kind in _BINARY]:
                unread.append(f"table {name}: binary columns {listed(binary)}")
            named = [column for column, kind in known if kind in _TEXT]
            left = until - time.monotonic()
            if named and left < 1:
                late.append(name)
            elif named:
                found += _of_table(reader, table, named, foreign.likely(), left, unread)
    if late:
        text = f"rows of {len(late)} tables, for search_rows_limit was over: {listed(late)}"
        unread.append(text)
    return found


@contextmanager
def _reader(node: Mariadb) -> Iterator[Mariadb]:
    """An account of this node's own socket that may read every table. Raises as Mariadb.script."""
    name, password = f"farside_reader_{secrets.token_hex(4)}", f"Aa-1{secrets.token_hex(24)}"
    account = f"{literal(name)}@localhost"
    try:
        node.script(
            "",
            f"CREATE USER {account} IDENTIFIED BY {literal(password)};"
            f"GRANT SELECT ON *.* TO {account};",
        )
        yield replace(node, user=name, password=SecretStr(password))
    finally:
        node.script("", f"DROP USER IF EXISTS {account};")


def _of_table(  # noqa: PLR0913 (where to read, what is likely there, how long, and what was not read)
    reader: Mariadb,
    table: TableName,
    columns: Sequence[str],
    likely: str,
    seconds: float,
    unread: list[str],
) -> Iterator[tuple[str, str]]:
    """Its values that look like `likely`, whatever their character set."""
    pattern = literal(f"(?i){likely}")
    values = [f"CONVERT(CAST({identifier(column)} AS CHAR) USING utf8mb4)" for column in columns]
    shown = ", ".join(
        f"IF({value} REGEXP {pattern}, LEFT({value}, {CHARACTERS_MOST}), NULL),"
        f" CHAR_LENGTH({value}) > {CHARACTERS_MOST}"
        for value in values
    )
    wanted = " OR ".join(f"{value} REGEXP {pattern}" for value in values)
    query = (
        f"SET STATEMENT max_statement_time = {seconds:.3f}, lock_wait_timeout = {LOCK_SECONDS}"
        f" FOR SELECT JSON_ARRAY({shown}) FROM {table.place} WHERE {wanted} LIMIT {ROWS_MOST + 1}"
    )
    try:
        rows = reader.objects(query, timeout=seconds + _GRACE_SECONDS)
    except FarsideError as error:
        unread.append(f"table {table.label}: {error.message}")
        return
    if len(rows) > ROWS_MOST:
        unread.append(f"table {table.label}: more than {ROWS_MOST} rows may name the source")
    cut = set[str]()
    for row in rows[:ROWS_MOST]:
        for number, column in enumerate(columns):
            text, is_longer = row[2 * number : 2 * number + 2]
            if text is not None:
                yield f"column {table.label}.{column}", text
                if is_longer:
                    cut.add(column)
    for column in sorted(cut):
        unread.append(
            f"column {table.label}.{column}: beyond {CHARACTERS_MOST:,} characters of a value"
        )
