"""Whether tables, indexes, views, routines, triggers and events are the source's."""

from collections.abc import Mapping

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.galera import details, survey
from blocks.engines.galera.facts import GaleraFacts
from blocks.engines.galera.last_look import LastLook
from blocks.engines.galera.nodes import Nodes, number
from blocks.engines.galera.tally import Tally
from blocks.evidence.catalogue import FindingId


def definitions(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """Tables, indexes, views, routines, triggers and events of each node are the manifest's.

    What the source did not show is compared with nothing: where all else is right, the result is
    unknown.
    """

    def run() -> Answer:
        tally = Tally()
        for host, node in nodes.items():
            with tally.looking(host):
                _hold_definitions(tally, host, facts, survey.definitions(node))
                if facts.details is not None:  # older sets have none
                    _hold_details(tally, host, facts, facts.details, details.digests(node))
        return tally.answer(f"{tally.seen} objects on {number(nodes)}, all the same")

    return CheckSpec("schema-digest", "the manifest's", run, finding=FindingId.INCOMPLETE_RESTORE)


def _hold_definitions(
    tally: Tally, host: str, facts: GaleraFacts, there: Mapping[str, str]
) -> None:
    """Hold the digests of a node against the manifest's."""
    whole, hidden, last = facts.definitions, facts.hidden, LastLook(facts.since)
    # Older sets have the columns of views, too: what these are defined by tells as much.
    views = {name.replace("view", "table", 1) for name in whole if name.startswith("view ")}
    wanted = {name: digest for name, digest in whole.items() if name not in views}
    for name in sorted(wanted.keys() | there.keys()):
        first, found = wanted.get(name), there.get(name)
        if "unseen" in (first, last.had("definitions", name, first)) or (
            first is None and name.split(" ")[0] in hidden
        ):
            tally.unseen.append(f"{host}: {name}: the source did not show it")
            continue
        tally.seen += found is not None
        said = "is missing" if found is None else "differs" if first else "was not in the source"
        last.compare(tally, "definitions", name, f"{host}: {name} {said}", found, first)


def _hold_details(
    tally: Tally,
    host: str,
    facts: GaleraFacts,
    made: Mapping[str, str],
    there: Mapping[str, str],
) -> None:
    """Hold how objects are made that are there, and were."""
    last = LastLook(facts.since)
    for name, first in sorted(made.items()):
        if (found := there.get(name)) is None:
            continue
        if "unseen" in (first, last.had("details", name, first)):
            tally.unseen.append(f"{host}: {name}: the source did not show how it is made")
            continue
        text = f"{host}: {name} is not made as it was (keys, options, or who defined it)"
        last.compare(tally, "details", name, text, found, first)
