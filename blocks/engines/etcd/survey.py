"""What the living source is: its members, accounts, leases and size."""

import time
from collections.abc import Mapping
from contextlib import suppress

from blocks.engines.etcd import last_look
from blocks.engines.etcd.access import is_protected, wants_certificate
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.facts import EtcdFacts, SourceMember
from blocks.errors import PermanentError

LEASES_LOOKED_AT = 200


def survey(client: Etcdctl, prefix: str) -> EtcdFacts:
    """Ask one member; `prefix` is the application's. Reads only. Raises as Etcdctl.json."""
    status, members = client.status(), client.json("member", "list")["members"]
    return EtcdFacts(
        version=status["version"],
        cluster_id=str(status["header"]["cluster_id"]),
        members=tuple(
            SourceMember(
                name=item.get("name", ""),
                id=str(item["ID"]),
                urls=(*item.get("peerURLs", ()), *item.get("clientURLs", ())),
            )
            for item in members
        ),
        revision=int(status["header"]["revision"]),
        bytes=int(status["dbSize"]),
        auth=is_protected(client),
        client_certificates=wants_certificate(client),
        alarms=last_look.alarms(client),
        below_prefix=client.count("--prefix", "--", prefix),
        users=last_look.users(client),
        roles=last_look.roles(client),
        granted=last_look.granted(client),
        leases=leases(client),
        leases_at=round(time.time()),
    )


def leases(client: Etcdctl) -> Mapping[str, int]:
    """Id -> granted seconds of the first leases. Raises as Etcdctl.json."""
    found = {}
    for item in client.json("lease", "list").get("leases", ())[:LEASES_LOOKED_AT]:
        # One that ends while it is looked at is none.
        with suppress(PermanentError):
            answer = client.json("lease", "timetolive", "--", f"{int(item['id']):x}")
            if int(answer.get("ttl", -1)) > 0:
                found[str(item["id"])] = int(answer["ttl"])
    return found
