"""What is asked of a restored etcd cluster."""

import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from blocks.engines.common.tally import Tally
from blocks.engines.etcd.etcdctl import (
    Compacted,
    Etcdctl,
    LoginRefused,
    NoSpace,
    NotAllowed,
    Untrusted,
)
from blocks.engines.etcd.findings import EtcdFinding
from blocks.engines.etcd.last_look import FACT, GRANTED, LastLook, granted, roles, users
from blocks.engines.etcd.plan import Application, TargetCluster
from blocks.engines.etcd.restore import RAISED_BY
from blocks.engines.legacy import checked
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus

SURVIVAL_SECONDS = 60.0
PROBE_SECONDS = 5.0
ALARM = "alarm {}"
"""The subject of what an alarm means, in preflight and afterwards: one cause, one finding."""
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
    """All members answer and know the same leader. What keeps them from writes: see `alarms`."""
    leaders, wrong = set[str](), list[str]()
    for endpoint, status in root.at(*target.endpoints).of_each(Etcdctl.status).items():
        if isinstance(status, FarsideError):
            wrong.append(f"{endpoint}: {status.message}")
            continue
        leaders.add(str(status.get("leader", 0)))
    if len(leaders) != 1 or leaders == {"0"}:
        wrong.append(f"{len(leaders - {'0'})} leaders")
    expected = "one leader, known to all"
    return checked("leader", expected, wrong, expected, finding="node-count-differs")


def alarms(root: Etcdctl) -> Check:
    """No alarm is raised: a snapshot holds the source's, with which a cluster takes no writes."""
    raised = root.alarms()
    wrong = [_alarm(name) for name in raised]
    subjects = tuple(ALARM.format(name) for name in raised)
    expected = "no alarm: writes are taken"
    return checked(
        "alarms", expected, wrong, expected, finding="usable-not-restored", subjects=subjects
    )


def of_alarms(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """The source's own alarms, which a restore of its snapshot brings back."""
    last = facts.get(FACT, {}).get("alarms", ())
    for name in dict.fromkeys((*facts.get("alarms", ()), *last)):
        remedy = "Give the source's etcd space (compact, defragment), then `etcdctl alarm disarm`."
        text = f"the source has it already: {_alarm(name)}"
        yield finding("usable-not-restored", ALARM.format(name), text, remedy=remedy)


def _alarm(name: str) -> str:
    return f"alarm {name} is raised: " + (
        "its data is damaged" if name == "CORRUPT" else "etcd takes no writes until it is disarmed"
    )


def whole(root: Etcdctl, target: TargetCluster) -> None:
    """Raise TransientError unless all members of the plan answer, and there are no others.

    Of such a cluster one member may die; of another one too many may be dead already.
    """
    known = len(root.json("member", "list")["members"])
    if known != len(target.members):
        raise TransientError(
            f"it has {known} members",
            operation="failover",
            domain=root.host.domain,
            host=root.host.name,
        )
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
    return checked("revision", RAISED, wrong, right, finding=EtcdFinding.REVISION_REUSED)


def key_space(
    root: Etcdctl, target: TargetCluster, facts: Mapping[str, Any], rehearsal_id: str
) -> Check:
    """Every key is the snapshot's, with its value and numbers, and the same on each member.

    Compared are the keys as restored (at the snapshot's revision, raised or not) and, if anything
    was written since, those that are served now: leases may have ended some, nothing else may.
    A revision that is not raised is the compacted one, if that is newer than any that is kept.
    Without a digest in the manifest nothing is comparable: the result is unknown. The snapshot
    itself is held against what the source counted at its revision.
    """
    kept = facts["snapshot"]
    counted, live, largest = kept.get("at_source"), kept.get("live"), kept.get("largest")
    newest, digest, lasting = kept["revision"], kept["digest"], kept.get("lasting")
    at, now = max(newest, kept.get("compacted") or 0), _revision(root)
    served = newest + RAISED_BY if now >= newest + RAISED_BY else at
    hashes, silent = dict[str, str](), list[FarsideError]()
    for endpoint, found in (
        root.at(*target.endpoints).of_each(lambda member: member.hash(served)).items()
    ):
        if isinstance(found, FarsideError):
            silent.append(found)
        else:
            hashes[endpoint] = found[0]
    wrong = [
        f"{endpoint} has hash {has}"
        for endpoint, has in hashes.items()
        if len(set(hashes.values())) > 1
    ]
    if None not in (counted, live) and counted != live:
        wrong.append(f"the snapshot has {live} keys, the source {counted} at its revision {at}")
    expected = "one hash on all members"
    right = f"the same on {len(target.endpoints)} members"
    if digest:
        expected += f", SHA-256 {digest} of all keys at revision {at}"
        read = root.read(rehearsal_id, served, largest=largest)
        if read.digest != digest:
            count = f" instead of {kept['live']}" if "live" in kept else ""
            wrong.append(f"{read.keys} keys{count}, SHA-256 {read.digest}")
        elif (
            lasting
            and now != served
            and root.read(rehearsal_id, 0, largest=largest).lasting != lasting
        ):
            wrong.append(f"keys were changed or deleted since revision {served}")
        right = f"{read.keys:,} keys, {right}"
    if wrong:
        return checked("key-space", expected, wrong, right, finding="incomplete-restore")
    if silent:
        raise silent[0]
    if not digest:
        text = f"not compared with the source: the set has no digest of its keys; {right}"
        return Check("key-space", CheckStatus.UNKNOWN, "the source's keys", text)
    return checked("key-space", expected, wrong, right, finding="incomplete-restore")


def _revision(root: Etcdctl) -> int:
    """The cluster's, now."""
    return int(root.json("get", "/", "--limit=1", "--keys-only")["header"]["revision"])


def logins(root: Etcdctl, facts: Mapping[str, Any]) -> Check:
    """Every user and role of the manifest is there, but for those that the source dropped.

    They are granted what they were, on each member. Members that answer alike are compared once.
    """
    tally, each = Tally(), list[Mapping[str, Any]]()
    for endpoint, found in root.of_each(_accounts).items():
        with tally.looking(endpoint):
            if isinstance(found, FarsideError):
                raise found
            tally.seen += 1
            if found not in each:
                each.append(found)
    for found in each:
        _compare_accounts(tally, found, facts)
    right = f"{len(facts['users'])} users, {len(facts['roles'])} roles"
    return tally.check("logins", "the manifest's users and roles", right, finding="login-missing")


def _accounts(member: Etcdctl) -> Mapping[str, Any]:
    return {"users": users(member), "roles": roles(member), GRANTED: granted(member)}


def _compare_accounts(tally: Tally, found: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    last = LastLook.of(facts)
    for part in ("users", "roles"):
        for name in facts[part]:
            text, there = f"{part[:-1]} {name}", name in found[part]
            tally.compare(text, f"{text} is missing", there, True, last.had(part, name))
    for label, digest in facts.get(GRANTED, {}).items():
        kind, _, name = label.partition(" ")
        if label in found[GRANTED]:
            text = f"{label} is granted something else"
            tally.compare(label, text, found[GRANTED][label], digest, last.granted(label))
        elif name in found[f"{kind}s"]:
            tally.unseen.append(f"what {label} is granted")


CERTIFICATES = "client certificates"
"""What preflight and the restored service find missing is one finding, by this subject."""


def access(root: Etcdctl, target: TargetCluster, facts: Mapping[str, Any]) -> Check:
    """Each member asks its clients for no less than the source did: users, certificates.

    Asked as a client that shows neither. A member that says nothing to one but answers another
    wants a certificate.
    """
    tally, last = Tally(), LastLook.of(facts).value("auth")
    asks_login = asks_certificate = True
    for endpoint in target.endpoints:
        member = root.at(endpoint)
        member.status()  # it answers one that shows all it has: what is silent now, refuses
        login, certificate = is_protected(member), wants_certificate(member)
        asks_login, asks_certificate = asks_login and login, asks_certificate and certificate
        tally.seen += 1
        if not login:
            text = f"{endpoint} asks for no user: authentication is off"
            tally.compare("authentication", text, False, facts["auth"], last, subject="users")
        if facts.get("client_certificates") and not certificate:
            text = f"{endpoint} asks for no client certificate, as the source does"
            tally.fail(text, CERTIFICATES)
    asked = [
        name for name, asks in (("a user", asks_login), ("a certificate", asks_certificate)) if asks
    ]
    right = f"clients are asked for {' and '.join(asked) or 'nothing, as at the source'}"
    expected = "no client is asked for less than by the source"
    return tally.check("access", expected, right, finding="service-more-open")


def is_protected(root: Etcdctl) -> bool:
    """Whether the cluster asks its clients for a user. Raises as Etcdctl.text."""
    try:
        root.as_nobody().count("/")
    except LoginRefused:
        return True
    return False


def wants_certificate(root: Etcdctl) -> bool:
    """Whether a member that answers `root` is silent to a client without a certificate.

    Raises what Etcdctl.text raises where it does not answer `root` right after either.
    """
    if not root.cert_file:
        return False
    try:
        root.without_certificate().text("endpoint", "status", timeout=PROBE_SECONDS)
    except (TransientError, Untrusted):
        root.text("endpoint", "status", timeout=PROBE_SECONDS)
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


def login(application: Etcdctl, app: Application, facts: Mapping[str, Any]) -> Check:
    """The application's own user reads its keys, and is asked who it is where it has a password.

    No key below its prefix is what the source had (then it is unknown), or a loss.
    """
    who = app.user or "anybody"
    expected, wrong = f"{who} reads below {app.prefix}", list[str]()
    unknown = f"there is no key below {app.prefix}, at the source neither"
    try:
        count = application.count("--prefix", "--", app.prefix)
        if app.password and not is_protected(application):
            wrong.append(f"no client is asked for a password: {who} proved nothing with one")
        had = facts.get("snapshot", {}).get("below_prefix")
        if not count and had:
            wrong.append(f"0 keys, where the source had {had}")
        elif not count and had is None and (surveyed := facts.get("below_prefix")):
            unknown = f"0 keys, where the source had {surveyed} at its survey: lost, or deleted"
    except LoginRefused as error:
        wrong.append(error.message)
    if not wrong and not count:
        return Check("login", CheckStatus.UNKNOWN, expected, unknown)
    return checked(
        "login", expected, wrong, f"{count} keys" if not wrong else "", finding="login-missing"
    )


def quorum_write(application: Etcdctl, app: Application, target: TargetCluster, id: str) -> Check:
    """A value committed through one member is read through another, then removed."""
    first, last = target.endpoints[0], target.endpoints[-1]
    expected = "a committed value is read through another member"
    key, wrong, subjects = f"{app.prefix}farside-{id}", list[str](), tuple[str, ...]()
    try:
        application.at(first).put(key, id)
        found = [item.value.decode(errors="replace") for item in application.at(last).get(key)]
        application.at(first).text("del", key)
        if found != [id]:
            wrong.append(f"read {found}")
    except NotAllowed as error:
        wrong.append(error.message)
    except NoSpace as error:
        wrong.append(error.message)
        subjects = (ALARM.format("NOSPACE"),)
    right = f"read back {id}"
    return checked(
        "committed-write", expected, wrong, right, finding="usable-not-restored", subjects=subjects
    )


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
            domain=root.host.domain,
            host=root.host.name,
            hint="name one key, or count with --count-only",
        )
    return found[0].value.decode(errors="replace")


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version in what `etcd --version` prints; (0, 0) if there is none."""
    match = re.search(r"etcd Version: (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
