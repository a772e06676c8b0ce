"""The application's writer to etcd: a heartbeat, a note of each acknowledgement, and some load.

    python3 etcd_writer.py LEDGER PASSWORD_FILE CA_FILE ENDPOINT...

Runs from the domain's own runtime, on the application's host, over etcd's JSON gateway. A beat is
the key /shop/heartbeat/N, N = 1, 2, 3, ..., whose value is the time; the ledger is as that of
heartbeat.py.
"""

import base64
import http.client
import itertools
import json
import random
import ssl
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

INTERVAL_SECONDS = 0.2
USER = "shop"
HEARTBEAT, LOAD = "/shop/heartbeat/", "/shop/orders/"
LOAD_KEYS, LOAD_EACH_BEAT = 2000, 10


class Gateway:
    """A connection to one member, as a user."""

    def __init__(self, endpoint: str, ca_file: str, password: str) -> None:
        parts = urlsplit(endpoint)
        trust = ssl.create_default_context(cafile=ca_file)
        self._connection = http.client.HTTPSConnection(
            str(parts.hostname), parts.port, timeout=5, context=trust
        )
        self._token = ""
        login = {"name": USER, "password": password}
        self._token = self.call("auth/authenticate", login)["token"]

    def call(self, path: str, body: Any) -> Any:
        """The answer of one call. Raises OSError, http.client.HTTPException, ValueError."""
        headers = {"Authorization": self._token} if self._token else {}
        self._connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {text[:200].decode(errors='replace')}")
        return json.loads(text)

    def put(self, key: str, value: str) -> None:
        """Commit a value."""
        self.call("kv/put", {"key": _encoded(key), "value": _encoded(value)})

    def has(self, key: str) -> bool:
        """Whether a key is there."""
        return bool(self.call("kv/range", {"key": _encoded(key)}).get("kvs"))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def beat(gateway: Gateway, ledger: TextIO, last: int) -> None:
    """Write until the connection breaks. `last` is the last number in the ledger."""
    number, due = last, time.monotonic()
    # Committed, but the writer was not told: told now, for no number may be left out.
    while gateway.has(f"{HEARTBEAT}{number + 1}"):
        number += 1
        note(ledger, number)
    while True:
        number += 1
        gateway.put(f"{HEARTBEAT}{number}", datetime.now(UTC).isoformat())
        note(ledger, number)
        for _ in range(LOAD_EACH_BEAT):
            gateway.put(f"{LOAD}{random.randrange(LOAD_KEYS)}", f"order of beat {number}")
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


def main(path: Path, password_file: Path, ca_file: str, endpoints: Sequence[str]) -> None:
    """Write for ever; go on at the next member whenever a connection is lost."""
    for endpoint in itertools.cycle(endpoints):
        try:
            gateway = Gateway(endpoint, ca_file, password_file.read_text().strip())
            with path.open("a") as ledger:
                beat(gateway, ledger, last_number(path))
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"{datetime.now(UTC).isoformat()} {error}", file=sys.stderr, flush=True)
            time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
