"""The last look at a source, when its snapshot is taken: what still held of the survey then.

The keys of a snapshot are of one revision, at which the source is asked the same; users, roles,
authentication and alarms have none that can be asked for, so that either look is right.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.errors import FarsideError, PermanentError, TransientError

GRANTED = "granted"
"""Where the facts keep what users and roles are granted; older ones do not say."""
GRANTS_LOOKED_AT = 200
"""So many users, and as many roles: each is a command of its own."""
FACT = "since"
"""Where the facts of a manifest keep it; older ones have none."""


@dataclass(frozen=True, slots=True)
class LastLook:
    """Parts of the survey as they were last; one that could not be asked again is left out."""

    parts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(facts: Mapping[str, Any]) -> "LastLook":
        """That of a manifest."""
        return LastLook(facts.get(FACT) or {})

    def had(self, part: str, name: str) -> object:
        """Whether a list had a name last; NOT_ASKED where it is not known."""
        return name in self.parts[part] if part in self.parts else NOT_ASKED

    def granted(self, label: str) -> object:
        """What a user or a role was granted last; NOT_ASKED where it is not known."""
        return self.parts.get(GRANTED, {}).get(label, NOT_ASKED)

    def value(self, part: str) -> object:
        """What a part was last; NOT_ASKED where it is not known."""
        return self.parts.get(part, NOT_ASKED)


def users(client: Etcdctl) -> list[str]:
    """Raises as Etcdctl.json."""
    return sorted(client.json("user", "list").get("users") or ())


def roles(client: Etcdctl) -> list[str]:
    """Raises as Etcdctl.json."""
    return sorted(client.json("role", "list").get("roles") or ())


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


def look_again(client: Etcdctl, auth: Callable[[Etcdctl], bool]) -> dict[str, Any]:
    """The parts, as JSON. Reads only; raises nothing.

    A member that does not answer one question is asked no other: etcdctl waits for it, whatever
    its time limit.
    """
    asked: Mapping[str, Callable[[Etcdctl], Any]] = {
        "alarms": Etcdctl.alarms,
        "auth": auth,
        "users": users,
        "roles": roles,
        GRANTED: granted,
    }
    found = dict[str, Any]()
    for part, ask in asked.items():
        try:
            found[part] = ask(client)
        except TransientError:
            break
        except FarsideError:
            continue
    return found


def counts_at(client: Etcdctl, revision: int, prefix: str) -> dict[str, int]:
    """How many keys the source had at the snapshot's revision: of all, and below a prefix.

    Without those that cannot be told, for it has compacted that revision. Raises nothing.
    """
    found, at = dict[str, int](), f"--rev={revision}"
    with suppress(FarsideError):
        found["at_source"] = client.count("--from-key", at, "--", "")
    with suppress(FarsideError):
        found["below_prefix"] = client.count("--prefix", at, "--", prefix)
    return found
