"""Whether the restored nodes are one cluster, the one that was meant."""

import time
from collections.abc import Iterator, Mapping, Sequence

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.galera import survey
from blocks.engines.galera.application import committed_write
from blocks.engines.galera.facts import GaleraFacts, local
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.nodes import HOURS, Nodes, batches, of_each
from blocks.engines.galera.plan import TargetCluster, address_and_port
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus, Node

SURVIVAL_SECONDS = 60.0


def observed(control: Mariadb, target: TargetCluster) -> tuple[Node, ...]:
    """The nodes that the cluster itself knows, by where clients reach them. Raises as `script`."""
    hosts = {node.address: node.host for node in target.nodes}
    hosts |= {node.endpoint: node.host for node in target.nodes}
    found = []
    for place in control.status()["wsrep_incoming_addresses"].split(","):
        address, port = address_and_port(place)
        host = hosts.get(place) or hosts.get(address or "", place)
        found.append(Node(host, "node", address or "", port or 0))
    return tuple(sorted(found, key=lambda node: node.host))


def synced(nodes: Nodes) -> CheckSpec:
    """Every node is a whole member of the one primary component."""

    def run() -> Answer:
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
        return judged(wrong, f"{len(nodes)} Synced")

    return CheckSpec(
        "synced", f"{len(nodes)} nodes, each Synced", run, finding=FindingId.NODE_COUNT_DIFFERS
    )


def membership(nodes: Nodes, target: TargetCluster) -> CheckSpec:
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

    def run() -> Answer:
        return judged(of_each(nodes, of_node), f"no others on {len(nodes)} nodes")

    expected = f"only {', '.join(sorted(ours))}"
    return CheckSpec("membership", expected, run, finding=FindingId.PEER_LIST_STALE)


def identity(nodes: Nodes, facts: GaleraFacts, cluster: str) -> CheckSpec:
    """One history with a name of its own: no node can join the source, nor be joined by it."""

    def run() -> Answer:
        uuids = set[str]()

        def of_node(node: Mariadb) -> Iterator[str]:
            status = node.status()
            own = {status["wsrep_cluster_state_uuid"], status["wsrep_local_state_uuid"]}
            uuids.update(own)
            if facts.state_uuid in own:
                yield f"the history is the source's, {facts.state_uuid}"
            name = node.value("", "SELECT @@wsrep_cluster_name")
            if name != cluster:
                yield f"it is of the cluster {name}"
            noted = node.value("", "SELECT COUNT(*) FROM mysql.wsrep_cluster_members")
            if int(noted) > len(nodes):
                yield f"it has noted {noted} members"

        wrong = of_each(nodes, of_node)
        if len(uuids) > 1:
            wrong.append(f"there are {len(uuids)} histories")
        return judged(wrong, f"history {min(uuids)}")

    expected = "a history and a name of its own"
    return CheckSpec("identity", expected, run, finding=FindingId.NODE_IDENTITY_REUSED)


def agree(nodes: Nodes) -> CheckSpec:
    """The nodes hold the same rows: each was restored by itself."""

    def run() -> Answer:
        if len(nodes) < 2:
            return Answer(CheckStatus.UNKNOWN, "there is one node")
        return _agreement(_checksums(nodes), tuple(nodes))

    expected = "the same checksum of each table on all nodes"
    return CheckSpec("nodes-agree", expected, run, finding=FindingId.INCOMPLETE_RESTORE, grows=True)


def _checksums(nodes: Nodes) -> Mapping[str, Mapping[str, str]]:
    """Table -> host -> its checksum there, NULL where it cannot be read."""
    sums: dict[str, dict[str, str]] = {}
    for host, node in nodes.items():
        for some in batches(local(survey.names(node))):
            places = ", ".join(item.place for item in some)
            for table, found in node.rows(f"CHECKSUM TABLE {places} EXTENDED", timeout=HOURS):
                sums.setdefault(table, {})[host] = found
    return sums


def _agreement(sums: Mapping[str, Mapping[str, str]], hosts: Sequence[str]) -> Answer:
    # Of a table that a node cannot read there is none: `table_checks` tells why.
    unread = {table for table, found in sums.items() if "NULL" in found.values()}
    wrong = [
        f"{table}: " + ", ".join(f"{found.get(host, 'nothing')} on {host}" for host in hosts)
        for table, found in sums.items()
        if len(found) < len(hosts) or len(set(found.values()) - {"NULL"}) > 1
    ]
    if unread and not wrong:
        text = f"no checksum of {', '.join(sorted(unread))}"
        raise PermanentError(text, operation="nodes-agree")
    if not wrong and not sums:
        return Answer(CheckStatus.UNKNOWN, "there is no table to compare")
    return judged(wrong, f"{len(sums)} tables, the same on {len(hosts)}")


def whole(nodes: Nodes) -> None:
    """Raise TransientError unless every node takes part.

    Of such a cluster one may die; of another one too many may be dead already.
    """
    found = synced(nodes).run()
    if found.status is not CheckStatus.PASSED:
        raise TransientError(f"it is not whole: {found.actual}", operation="failover")


def survives(others: Nodes, rehearsal_id: str) -> Answer:
    """With one node dead, the others are the cluster, and take a write."""
    began = time.monotonic()
    while True:
        try:
            sizes = {node.status().get("wsrep_cluster_size", "") for node in others.values()}
            if sizes == {str(len(others))}:
                written = committed_write(others, rehearsal_id).run()
                text = f"{time.monotonic() - began:.1f} s after its death: {written.actual}"
                return judged([text] if written.status is not CheckStatus.PASSED else [], text)
            said = f"the cluster's size is {', '.join(sorted(sizes))}"
        except TransientError as error:
            said = error.message
        if time.monotonic() - began > SURVIVAL_SECONDS:
            return judged([said], "")
        time.sleep(0.2)
