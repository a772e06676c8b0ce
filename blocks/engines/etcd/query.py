"""A plan's query of etcd: what follows `etcdctl get`."""

import shlex

from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.errors import PermanentError


def answer(root: Etcdctl, query: str) -> str:
    """The one value that `etcdctl get QUERY` yields, or the number of keys with --count-only.

    Raises PermanentError, also where it is no one value; else as Etcdctl.text.
    """
    words = _words(query)
    if "--count-only" in words:
        return str(root.count(*(word for word in words if word != "--count-only")))
    found = root.get(*words)
    if len(found) != 1:
        raise PermanentError(
            f"the query yields {len(found)} keys; a check needs exactly one value",
            operation="etcdctl",
            domain=root.host.domain,
            host=root.host.name,
            hint="name one key, or count with --count-only",
        )
    return found[0].value.decode(errors="replace")


def _words(query: str) -> list[str]:
    """As a shell would take it."""
    try:
        return shlex.split(query)
    except ValueError as error:
        raise PermanentError(f"{query!r}: {error}", operation="a plan's query") from None
