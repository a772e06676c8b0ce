"""The last look at a source, when its snapshot is taken: what still held of the survey then.

The keys of a snapshot are of one revision, at which the source is asked the same; users, roles,
authentication and alarms have none that can be asked for, so that either look is right.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blocks.engines.etcd.access import is_protected
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.facts import LastLook
from blocks.errors import FarsideError, PermanentError, TransientError

GRANTS_LOOKED_AT = 200
"""So many users, and as many roles: each is a command of its own."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many keys the source had at a revision: of all, and below a prefix; None: not known."""

    at_source: int | None = None
    below_prefix: int | None = None


def users(client: Etcdctl) -> tuple[str, ...]:
    """Raises as Etcdctl.json."""
    return tuple(sorted(client.json("user", "list").get("users") or ()))


def roles(client: Etcdctl) -> tuple[str, ...]:
    """Raises as Etcdctl.json."""
    return tuple(sorted(client.json("role", "list").get("roles") or ()))


def alarms(client: Etcdctl) -> tuple[str, ...]:
    """Raises as Etcdctl.json."""
    return tuple(client.alarms())


def granted(client: Etcdctl) -> dict[str, str]:
    """Digests of each user's roles and of each role's permissions, by `user NAME`, `role NAME`.

    One that is deleted meanwhile is left out. Raises as Etcdctl.json.
    """
    found = dict[str, str]()
    for kind, names in (("user", users(client)), ("role", roles(client))):
        for name in names[:GRANTS_LOOKED_AT]:
            with suppress(PermanentError):
                answer = client.json(kind, "get", "--", name)
                text = str((sorted(answer.get("roles") or ()), _permissions(answer)))
                found[f"{kind} {name}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _permissions(answer: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    return sorted(
        (item.get("key", ""), item.get("range_end", ""), int(item.get("permType", 0)))
        for item in answer.get("perm") or ()
    )


def look_again(client: Etcdctl) -> LastLook:
    """The parts that can be asked again. Reads only; raises nothing.

    A member that does not answer one question is asked no other: etcdctl waits for it, whatever
    its time limit.
    """
    asked: Mapping[str, Callable[[Etcdctl], Any]] = {
        "alarms": alarms,
        "auth": is_protected,
        "users": users,
        "roles": roles,
        "granted": granted,
    }
    found = dict[str, Any]()
    for part, ask in asked.items():
        try:
            found[part] = ask(client)
        except TransientError:
            break
        except FarsideError:
            continue
    return LastLook(**found)


def counts_at(client: Etcdctl, revision: int, prefix: str) -> Counts:
    """What the source had at the snapshot's revision. Raises nothing.

    Without those that cannot be told, for it has compacted that revision.
    """
    at = f"--rev={revision}"
    every = below = None
    with suppress(FarsideError):
        every = client.count("--from-key", at, "--", "")
    with suppress(FarsideError):
        below = client.count("--prefix", at, "--", prefix)
    return Counts(every, below)
