"""Whether nothing acts by itself on the restored nodes, and what the data needs is loaded."""

from collections.abc import Iterator

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.galera import survey
from blocks.engines.galera.facts import GaleraFacts
from blocks.engines.galera.last_look import LastLook
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.nodes import Nodes, of_each
from blocks.engines.galera.tally import Tally
from blocks.evidence.catalogue import FindingId


def isolation(nodes: Nodes) -> CheckSpec:
    """No event or plugin acts by itself; no node follows another server or is asked to call one."""

    def run() -> Answer:
        return judged(of_each(nodes, _acting), f"nothing acts by itself on {len(nodes)} nodes")

    expected = "no event scheduler, no replication, no notification, no plugin with its own work"
    return CheckSpec("isolation", expected, run, finding=FindingId.RESTORED_JOBS_FIRE)


def _acting(node: Mariadb) -> Iterator[str]:
    """What of a node acts by itself."""
    scheduler = node.value("", "SELECT @@event_scheduler")
    if scheduler == "ON":
        yield f"the event scheduler is {scheduler}"
    for row in node.rows("SHOW ALL SLAVES STATUS"):
        yield f"it replicates from {row[3]}"
    notified = node.value("", "SELECT @@wsrep_notify_cmd")
    if notified not in ("", "NULL"):
        yield f"it runs {notified}"
    for item in survey.active_plugins(node):
        if item.may_act:
            yield f"the plugin {item.name} ({item.type}) runs"


def plugins(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """What the source's tables, or who may read them, depend on is loaded on each node."""

    def run() -> Answer:
        wanted = {item.name: item.type for item in facts.plugins if item.is_needed}
        tally, last = Tally(), LastLook(facts.since)
        active = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = 'ACTIVE'"
        for host, node in nodes.items():
            with tally.looking(host):
                there = {row[0] for row in node.rows(active)}
                tally.seen += 1
                for name, kind in sorted(wanted.items()):
                    found, text = (
                        kind if name in there else None,
                        f"the plugin {name} is not active",
                    )
                    last.compare(tally, "plugins", name, f"{host}: {text}", found, kind)
        return tally.answer(f"{len(wanted)} active")

    expected = "the source's, as far as its data needs them"
    return CheckSpec("plugins", expected, run, finding=FindingId.EXTENSION_MISSING)
