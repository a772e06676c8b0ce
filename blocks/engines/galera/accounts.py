"""Whether users and roles are the source's, let in by as much, and allowed the same."""

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.galera import privileges as granted
from blocks.engines.galera import survey
from blocks.engines.galera.facts import GaleraFacts
from blocks.engines.galera.last_look import LastLook
from blocks.engines.galera.nodes import Nodes, number
from blocks.engines.galera.tally import Tally
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus


def accounts(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """Every user and role of the manifest is there, on each node."""

    def run() -> Answer:
        tally, last = Tally(), LastLook(facts.since)
        for host, node in nodes.items():
            with tally.looking(host):
                there = set(survey.accounts(node))
                tally.seen += 1
                for name in facts.accounts:
                    found, text = True if name in there else None, f"{host}: {name} is missing"
                    last.compare(tally, "accounts", name, text, found, True)
        return tally.answer(f"{len(facts.accounts)} users, roles on {number(nodes)}")

    return CheckSpec("logins", "the manifest's users", run, finding=FindingId.LOGIN_MISSING)


def access(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """On each node an account is let in by what it was at the source, and none is there besides.

    But for those that farside made for itself, which get in by a node's own socket alone.
    """

    def run() -> Answer:
        tally, last, own, wanted = Tally(), LastLook(facts.since), _own(nodes), facts.demands
        if not wanted:
            text = "the source did not show by what its accounts are let in"
            return Answer(CheckStatus.UNKNOWN, text)
        secure = facts.settings.get("require_secure_transport") == "ON"
        for host, node in nodes.items():
            with tally.looking(host):
                for name, has in sorted(survey.demands(node).items()):
                    tally.seen += 1
                    if name not in own:
                        first = wanted.get(name)
                        at_source = "at the source by " + (first or "nothing: it is new")
                        text = f"{host}: {name} is let in by {has}; {at_source}"
                        last.compare(tally, "demands", name, text, has, first)
                if secure and node.value("", "SELECT @@require_secure_transport") != "1":
                    tally.fail(
                        f"{host}: connections without TLS are let in; at the source they were not"
                    )
        return tally.answer(f"{tally.seen} accounts on {number(nodes)}, as at the source")

    expected = "no account is let in by less than at the source"
    return CheckSpec("access", expected, run, finding=FindingId.SERVICE_MORE_OPEN)


def privileges(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """On each node every account and role may do what it might at the source, and nothing else."""

    def run() -> Answer:
        tally, last, own, wanted = Tally(), LastLook(facts.since), _own(nodes), facts.privileges
        if not wanted:
            return Answer(CheckStatus.UNKNOWN, "the source did not show what was granted")
        for host, node in nodes.items():
            with tally.looking(host):
                there = granted.digests(node) or {}
                for name in sorted((wanted.keys() | there.keys()) - own):
                    first, found = wanted.get(name), there.get(name)
                    tally.seen += 1
                    said = "are gone" if found is None else "differ" if first else "are new"
                    text = f"{host}: the privileges of {name} {said}"
                    last.compare(tally, "privileges", name, text, found, first)
        return tally.answer(f"of {len(wanted)} on {number(nodes)}, as at the source")

    expected = "every account and role may do what it might at the source"
    return CheckSpec("privileges", expected, run, finding=FindingId.INCOMPLETE_RESTORE)


def _own(nodes: Nodes) -> set[str]:
    """The accounts that farside made for itself on each node."""
    return {f"{item.user}@localhost" for item in nodes.values()}
