"""The application's pulse: commits a beat several times a second and notes each acknowledgement.

    python3 writer.py CLIENT_FILE [ARGUMENT...] LEDGER

Runs from the domain's own runtime, on the application's host, with the standard library and what
the client imports. The ledger is outside the database and outside the domain: one line for each
beat, its number, a tab and the UTC time at which its commit was known to be acknowledged. Beats
are numbered 1, 2, 3, ..., without gaps.

CLIENT_FILE is a module with `LOST`, the exceptions that mean a lost connection, and
`connect(attempt, *arguments)`, which returns a `Client`; `attempt` counts connections from 0.
"""

import importlib.util
import itertools
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

INTERVAL_SECONDS = 0.2


class Client(Protocol):
    """One connection to the database."""

    def committed(self, last: int) -> int:
        """The newest beat in the database; the ledger's last one is `last`."""
        ...

    def write(self, number: int) -> None:
        """Commit a beat."""
        ...

    def load(self, number: int) -> None:
        """Whatever else the application writes after a beat."""
        ...

    def close(self) -> None:
        """End the connection, whatever state it is in."""
        ...


def beat(client: Client, ledger: TextIO, last: int) -> None:
    """Write until the connection breaks. `last` is the last number in the ledger."""
    # Committed, but the writer died or lost its connection before it was told: told now.
    committed = client.committed(last)
    for number in range(last + 1, committed + 1):
        note(ledger, number)
    number, due = max(last, committed), time.monotonic()
    while True:
        number += 1
        client.write(number)
        note(ledger, number)
        client.load(number)
        due = max(due + INTERVAL_SECONDS, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def note(ledger: TextIO, number: int) -> None:
    """Note that a beat's commit was acknowledged."""
    ledger.write(f"{number}\t{datetime.now(UTC).isoformat()}\n")
    ledger.flush()


def last_number(path: Path) -> int:
    """The last number in the ledger, 0 if it is empty."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(lines[-1].split("\t")[0]) if lines else 0


def loaded(path: Path) -> Any:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location("client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(client_file: Path, arguments: Sequence[str], path: Path) -> None:
    """Write until killed; connect again whenever the connection is lost."""
    module = loaded(client_file)
    for attempt in itertools.count():
        try:
            client: Client = module.connect(attempt, *arguments)
            try:
                with path.open("a") as ledger:
                    beat(client, ledger, last_number(path))
            finally:
                client.close()
        except module.LOST as error:
            print(f"{datetime.now(UTC).isoformat()} {error}", file=sys.stderr, flush=True)  # noqa: T201 (a process of the lab: this is its log)
            time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:-1], Path(sys.argv[-1]))
