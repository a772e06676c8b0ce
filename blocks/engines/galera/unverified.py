"""What of a restored cluster no check looks at."""

from blocks.engines.galera import settings
from blocks.engines.galera.facts import GaleraFacts, local
from blocks.engines.galera.plan import TargetCluster
from blocks.engines.restored import ROWS_NOT_SEARCHED


def phrases(target: TargetCluster, facts: GaleraFacts) -> list[str]:
    """A phrase each."""
    missed = []
    if (count := len(target.nodes)) == 2:
        missed.append("the death of a node: of two nodes, one alone has no quorum")
    elif count == 1:
        missed.append("the death of a node, and that nodes agree: there is one")
    here = local(facts.tables)
    if outbound := len(facts.tables) - len(here):
        missed.append(f"{outbound} tables of other servers: to read them would call those")
    if estimated := sum(item.exact is None for item in here):
        missed.append(f"rows of {estimated} tables: only against the source's own estimates")
    if indexes := facts.fulltext:
        missed.append(f"{indexes} full-text indexes: CHECK TABLE reads nothing of them")
    if gone := settings.dropped(facts.changed or ()):
        missed.append(f"settings of the source that are not carried over: {', '.join(gone)}")
    missed += [f"replication from {host}: it is not restored" for host in facts.upstreams]
    for name in ("gssapi", "pam"):
        by = sum(how.split(",")[0] == name for how in (facts.demands or {}).values())
        if by:
            missed.append(f"logins of {by} accounts by {name}: the host decides, not the data")
    asleep = sorted(item.name for item in facts.plugins if item.may_act)
    missed += [f"what plugin {name} does by itself: it is kept off" for name in asleep]
    missed.append(ROWS_NOT_SEARCHED)
    return missed
