"""What is asked of a restored etcd cluster."""

import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from blocks.engines.base import checked
from blocks.engines.kv.client import Compacted, Etcdctl, LoginRefused, NotAllowed
from blocks.engines.kv.clusters import Application, TargetCluster
from blocks.engines.kv.members import RAISED_BY
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.record import Check

SURVIVAL_SECONDS = 60.0
RAISED = "a revision that the source never reached, and all before it compacted"


def membership(root: Etcdctl, target: TargetCluster) -> Check:
    """The members are those of the recovery inventory, at its addresses, and no other."""
    wanted = {m.host: ([m.peer_url], [m.client_url]) for m in target.members}
    found = {
        str(m.get("name", "")): (m.get("peerURLs", []), m.get("clientURLs", []))
        for m in root.json("member", "list")["members"]
    }
    wrong = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    wrong += [
        f"{name or 'an unnamed one'} is a member, at {', '.join(found[name][0])}"
        for name in found.keys() - wanted.keys()
    ]
    wrong += [
        f"{name} is at {', '.join((*found[name][0], *found[name][1]))}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    return checked(
        "membership",
        f"{', '.join(sorted(wanted))} at their own addresses",
        sorted(wrong),
        f"{len(found)} members, as in the plan",
        finding="peer-list-stale",
    )


def identity(root: Etcdctl, facts: Mapping[str, Any]) -> Check:
    """Cluster and members have other ids than the source's: neither can join the other."""
    answer = root.json("member", "list")
    cluster = str(answer["header"]["cluster_id"])
    old = {str(member["id"]) for member in facts["members"]}
    reused = [
        f"member {m['name']} has an id of the source"
        for m in answer["members"]
        if str(m["ID"]) in old
    ]
    if cluster == facts["cluster_id"]:
        reused.insert(0, "the cluster has the source's id")
    expected, right = "ids that the source did not have", f"cluster id {cluster}"
    return checked("identity", expected, reused, right, finding="node-identity-reused")


def leader(root: Etcdctl, target: TargetCluster) -> Check:
    """All members know the same leader, and none is behind, corrupt or without space."""
    leaders, wrong = set[str](), list[str]()
    for endpoint, status in root.at(*target.endpoints).of_each(Etcdctl.status).items():
        if isinstance(status, FarsideError):
            wrong.append(f"{endpoint}: {status.message}")
            continue
        leaders.add(str(status.get("leader", 0)))
        wrong += [f"{endpoint}: {text}" for text in status.get("errors", ())]
    if len(leaders) != 1 or leaders == {"0"}:
        wrong.append(f"{len(leaders - {'0'})} leaders")
    expected = "one leader, known to all"
    return checked("leader", expected, wrong, expected, finding="node-count-differs")


def whole(root: Etcdctl, target: TargetCluster) -> None:
    """Raise TransientError unless all members of the plan answer, and there are no others.

    Of such a cluster one member may die; of another one too many may be dead already.
    """
    known = len(root.json("member", "list")["members"])
    if known != len(target.members):
        raise TransientError(f"it has {known} members", operation="failover", host=root.host.name)
    for found in root.at(*target.endpoints).of_each(Etcdctl.status).values():
        if isinstance(found, FarsideError):
            raise found


def revision(root: Etcdctl, facts: Mapping[str, Any]) -> Check:
    """Who watches or caches cannot go on where the lost cluster was: etcd tells it to begin anew.

    The revision was raised, and what lies between is compacted.
    """
    at, now, wrong = facts["snapshot"]["revision"], _revision(root), list[str]()
    if now < at + RAISED_BY:
        wrong.append(f"it is at {now}, and was at {at} in the snapshot")
    try:
        root.get("/", f"--rev={max(at, 1)}")
        wrong.append(f"revision {at} can still be read")
    except Compacted:
        pass
    right = f"{now:,}; revision {at:,} is compacted"
    return checked("revision", RAISED, wrong, right, finding="revision-reused")


def key_space(root: Etcdctl, target: TargetCluster, facts: Mapping[str, Any]) -> Check:
    """The keys of the snapshot's revision are the manifest's, and the same on each member.

    etcd's own hash depends on what is compacted: it is the manifest's only where that is the same.
    The digest does not; there is none of a key space that is too large to be read.
    """
    kept = facts["snapshot"]
    at, wanted, digest = kept["revision"], kept["hash"], kept["digest"]
    served = at + RAISED_BY if _revision(root) >= at + RAISED_BY else at
    hashes, silent = dict[str, tuple[str, int]](), list[FarsideError]()
    for endpoint, found in (
        root.at(*target.endpoints).of_each(lambda member: member.hash(served)).items()
    ):
        if isinstance(found, FarsideError):
            silent.append(found)
        else:
            hashes[endpoint] = found
    is_comparable = {compacted for _, compacted in hashes.values()} == {kept["compacted"]}
    wrong = [
        f"{endpoint} has hash {has}"
        for endpoint, (has, _) in hashes.items()
        if (is_comparable and has != wanted) or len(set(hashes.values())) > 1
    ]
    if not wrong and digest and (read := root.digest(served)) != digest:
        wrong.append(f"SHA-256 {read} of all keys")
    if silent and not wrong:
        raise silent[0]
    expected = ["one hash on all members"]
    expected += [f"hash {wanted} at revision {at}"] if is_comparable else []
    expected += [f"SHA-256 {digest} of all keys at revision {at}"] if digest else []
    right = f"the same on {len(target.endpoints)} members"
    return checked("key-space", ", ".join(expected), wrong, right, finding="incomplete-restore")


def _revision(root: Etcdctl) -> int:
    """The cluster's, now."""
    return int(root.json("get", "/", "--limit=1", "--keys-only")["header"]["revision"])


def logins(root: Etcdctl, facts: Mapping[str, Any]) -> Check:
    """Authentication is on, and every user and role of the manifest is there."""
    wrong = [] if not facts["auth"] or is_protected(root) else ["authentication is off"]
    for kind in ("user", "role"):
        found = set(root.json(kind, "list").get(f"{kind}s", ()))
        wrong += [f"{kind} {name} is missing" for name in facts[f"{kind}s"] if name not in found]
    return checked(
        "logins",
        "the manifest's users and roles",
        wrong,
        f"{len(facts['users'])} users, {len(facts['roles'])} roles",
        finding="login-missing",
    )


def is_protected(root: Etcdctl) -> bool:
    """Whether the cluster asks who is there. Raises as Etcdctl.text."""
    try:
        root.as_nobody().count("/")
    except LoginRefused:
        return True
    return False


def leases(root: Etcdctl, facts: Mapping[str, Any]) -> Check:
    """The manifest's leases; those that were to end before now may have."""
    found = {str(item["id"]) for item in root.json("lease", "list").get("leases", ())}
    age = time.time() - facts["leases_at"]
    missing = [
        f"lease {int(id):x} is missing"
        for id, ttl in facts["leases"].items()
        if id not in found and ttl > age
    ]
    expected, right = "the manifest's leases", f"{len(found)} leases"
    return checked("leases", expected, missing, right, finding="incomplete-restore")


def login(application: Etcdctl, app: Application) -> Check:
    """The application's own user reads below its prefix."""
    expected = f"{app.user or 'anybody'} reads below {app.prefix}"
    wrong, count = list[str](), 0
    try:
        count = application.count("--prefix", app.prefix)
    except LoginRefused as error:
        wrong.append(error.message)
    return checked("login", expected, wrong, f"{count} keys", finding="login-missing")


def quorum_write(application: Etcdctl, app: Application, target: TargetCluster, id: str) -> Check:
    """A value committed through one member is read through another, then removed."""
    first, last = target.endpoints[0], target.endpoints[-1]
    expected = "a committed value is read through another member"
    key, wrong = f"{app.prefix}farside-{id}", list[str]()
    try:
        application.at(first).put(key, id)
        found = [item.value.decode(errors="replace") for item in application.at(last).get(key)]
        application.at(first).text("del", key)
        if found != [id]:
            wrong.append(f"read {found}")
    except NotAllowed as error:
        wrong.append(error.message)
    right = f"read back {id}"
    return checked("committed-write", expected, wrong, right, finding="usable-not-restored")


def survives(writing: Etcdctl, app: Application, id: str, dead: str) -> Check:
    """With one member dead, the others have a leader again and take a write."""
    expected, key = f"the others take writes when {dead} has died", f"{app.prefix}farside-{id}"
    began, wrong = time.monotonic(), list[str]()
    while True:
        try:
            writing.put(key, id)
            found = [item.value.decode(errors="replace") for item in writing.get(key)]
            writing.text("del", key)
            if found != [id]:
                wrong.append(f"read {found}")
            break
        except TransientError as error:
            if time.monotonic() - began > SURVIVAL_SECONDS:
                wrong.append(error.message)
                break
            time.sleep(0.2)
    right = f"a write was taken {time.monotonic() - began:.1f} s after the death of {dead}"
    return checked("failover", expected, wrong, right, finding="usable-not-restored")


def answer(root: Etcdctl, words: Collection[str]) -> str:
    """The one value that `etcdctl get WORDS` yields, or the number of keys with --count-only."""
    if "--count-only" in words:
        return str(root.count(*(word for word in words if word != "--count-only")))
    found = root.get(*words)
    if len(found) != 1:
        raise PermanentError(
            f"the query yields {len(found)} keys; a check needs exactly one value",
            operation="etcdctl",
            host=root.host.name,
            hint="name one key, or count with --count-only",
        )
    return found[0].value.decode(errors="replace")


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version in what `etcd --version` prints; (0, 0) if there is none."""
    match = re.search(r"etcd Version: (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
