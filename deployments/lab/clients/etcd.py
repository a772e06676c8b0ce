"""The writer's client of etcd, over etcd's JSON gateway: PASSWORD_FILE CA_FILE ENDPOINT...

A beat is the key /shop/heartbeat/N, whose value is the time.
"""

import base64
import http.client
import json
import random
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOST = (OSError, http.client.HTTPException, ValueError)
USER = "shop"
HEARTBEAT, LOAD = "/shop/heartbeat/", "/shop/orders/"
LOAD_KEYS, LOAD_EACH_BEAT = 2000, 10


class Client:
    """A connection to one member, as a user."""

    def __init__(self, endpoint: str, ca_file: str, password: str) -> None:
        parts = urlsplit(endpoint)
        trust = ssl.create_default_context(cafile=ca_file)
        self._connection = http.client.HTTPSConnection(
            str(parts.hostname), parts.port, timeout=5, context=trust
        )
        self._token = ""
        login = {"name": USER, "password": password}
        self._token = self._call("auth/authenticate", login)["token"]

    def committed(self, last: int) -> int:
        """See `writer.Client`."""
        number = last
        while self._call("kv/range", {"key": _encoded(f"{HEARTBEAT}{number + 1}")}).get("kvs"):
            number += 1
        return number

    def write(self, number: int) -> None:
        """See `writer.Client`."""
        self._put(f"{HEARTBEAT}{number}", datetime.now(UTC).isoformat())

    def load(self, number: int) -> None:
        """Orders, each of which takes the place of an older one."""
        for _ in range(LOAD_EACH_BEAT):
            self._put(f"{LOAD}{random.randrange(LOAD_KEYS)}", f"order of beat {number}")

    def close(self) -> None:
        """See `writer.Client`."""
        self._connection.close()

    def _put(self, key: str, value: str) -> None:
        self._call("kv/put", {"key": _encoded(key), "value": _encoded(value)})

    def _call(self, path: str, body: Any) -> Any:
        headers = {"Authorization": self._token} if self._token else {}
        self._connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {text[:200].decode(errors='replace')}")
        return json.loads(text)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def connect(attempt: int, password_file: str, ca_file: str, *endpoints: str) -> Client:
    """Connect to one of the members, each time to the next. Raises what is in LOST."""
    endpoint = endpoints[attempt % len(endpoints)]
    return Client(endpoint, ca_file, Path(password_file).read_text().strip())
