"""Whether the restored nodes are one cluster, the one that was meant."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from blocks.engines.galera import survey
from blocks.engines.galera.checks import HOURS, Nodes, batches, committed_write, of_each, place_of
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.plan import TargetCluster, address_and_port
from blocks.engines.galera.survey import local
from blocks.engines.legacy import checked
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus

SURVIVAL_SECONDS = 60.0


def synced(nodes: Nodes) -> Check:
    """Every node is a whole member of the one primary component."""
    wrong = []
    for host, node in nodes.items():
        try:
            status = node.status()
        except TransientError as error:
            wrong.append(f"{host}: {error.message}")
            continue
        if why := survey.why_not(status):
            wrong.append(f"{host}: {why}")
        size = status.get("wsrep_cluster_size")
        if size != str(len(nodes)):
            wrong.append(f"{host} sees {size} of {len(nodes)} nodes")
    expected, right = f"{len(nodes)} nodes, each Synced", f"{len(nodes)} Synced"
    return checked("synced", expected, wrong, right, finding="node-count-differs")


def membership(nodes: Nodes, target: TargetCluster) -> Check:
    """Each node knows, and looks for, those of the recovery inventory alone.

    One that is missing is not of the cluster (`synced`), one at another port is in another place.
    """
    ours = {node.address for node in target.nodes}

    def of_node(node: Mariadb) -> Iterator[str]:
        for place in node.status().get("wsrep_incoming_addresses", "").split(","):
            if place and address_and_port(place)[0] not in ours:
                yield f"knows {place}"
        named = node.value("", "SELECT @@wsrep_cluster_address")
        if named != f"gcomm://{target.peers}":
            yield f"looks for {named}"

    wrong = of_each(nodes, of_node)
    expected = f"only {', '.join(sorted(ours))}"
    right = f"no others on {len(nodes)} nodes"
    return checked("membership", expected, wrong, right, finding="peer-list-stale")


def identity(nodes: Nodes, facts: Mapping[str, Any], cluster: str) -> Check:
    """One history with a name of its own: no node can join the source, nor be joined by it."""
    uuids = set[str]()

    def of_node(node: Mariadb) -> Iterator[str]:
        status = node.status()
        own = {status["wsrep_cluster_state_uuid"], status["wsrep_local_state_uuid"]}
        uuids.update(own)
        if facts["state_uuid"] in own:
            yield f"the history is the source's, {facts['state_uuid']}"
        name = node.value("", "SELECT @@wsrep_cluster_name")
        if name != cluster:
            yield f"it is of the cluster {name}"
        noted = node.value("", "SELECT COUNT(*) FROM mysql.wsrep_cluster_members")
        if int(noted) > len(nodes):
            yield f"it has noted {noted} members"

    wrong = of_each(nodes, of_node)
    if len(uuids) > 1:
        wrong.append(f"there are {len(uuids)} histories")
    expected, right = "a history and a name of its own", f"history {min(uuids)}"
    return checked("identity", expected, wrong, right, finding="node-identity-reused")


def agree(nodes: Nodes) -> Check:
    """The nodes hold the same rows: each was restored by itself."""
    expected = "the same checksum of each table on all nodes"
    if len(nodes) < 2:
        return Check("nodes-agree", CheckStatus.UNKNOWN, expected, "there is one node")
    sums: dict[str, dict[str, str]] = {}
    for host, node in nodes.items():
        for some in batches(local(survey.names(node))):
            names = ", ".join(map(place_of, some))
            for table, found in node.rows(f"CHECKSUM TABLE {names} EXTENDED", timeout=HOURS):
                sums.setdefault(table, {})[host] = found
    # Of a table that a node cannot read there is none: `table_checks` tells why.
    unread = {table for table, found in sums.items() if "NULL" in found.values()}
    wrong = [
        f"{table}: " + ", ".join(f"{found.get(host, 'nothing')} on {host}" for host in nodes)
        for table, found in sums.items()
        if len(found) < len(nodes) or len(set(found.values()) - {"NULL"}) > 1
    ]
    if unread and not wrong:
        text = f"no checksum of {', '.join(sorted(unread))}"
        raise PermanentError(text, operation="nodes-agree")
    if not wrong and not sums:
        return Check("nodes-agree", CheckStatus.UNKNOWN, expected, "there is no table to compare")
    right = f"{len(sums)} tables, the same on {len(nodes)}"
    return checked("nodes-agree", expected, wrong, right, finding="incomplete-restore")


def whole(nodes: Nodes) -> None:
    """Raise TransientError unless every node takes part.

    Of such a cluster one may die; of another one too many may be dead already.
    """
    found = synced(nodes)
    if found.status is not CheckStatus.PASSED:
        raise TransientError(f"it is not whole: {found.actual}", operation="failover")


def survives(others: Nodes, id: str, dead: str) -> Check:
    """With one node dead, the others are the cluster, and take a write."""
    expected = f"the others take writes when {dead} has died"
    began, wrong, right = time.monotonic(), list[str](), ""
    while True:
        try:
            sizes = {node.status().get("wsrep_cluster_size", "") for node in others.values()}
            if sizes == {str(len(others))}:
                written = committed_write(others, id)
                right = f"{time.monotonic() - began:.1f} s after its death: {written.actual}"
                if written.status is not CheckStatus.PASSED:
                    wrong.append(right)
                break
            said = f"the cluster's size is {', '.join(sorted(sizes))}"
        except TransientError as error:
            said = error.message
        if time.monotonic() - began > SURVIVAL_SECONDS:
            wrong.append(said)
            break
        time.sleep(0.2)
    return checked("failover", expected, wrong, right, finding="usable-not-restored")
