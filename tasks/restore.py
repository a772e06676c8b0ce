"""Restore: from the recovery store, on the recovery hosts, into the shape that they have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from prefect import task, unmapped
from prefect.cache_policies import NO_CACHE

from blocks.engines.restoration import Restoration
from blocks.engines.restored import Restored
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Node, Topology
from blocks.evidence.stages import StageName
from blocks.remote.jobs import sweep_host
from blocks.repositories.farside.reader import SetReader
from tasks.context import Rehearsal, stage
from tasks.inspect.diagnose import FoundProblems
from tasks.key_fetch import Opening
from tasks.preflight import Survey
from tasks.reporting.clock import StageInProgress

STAGE = StageName.RESTORE


def restoration(
    rehearsal: Rehearsal, reader: SetReader, opening: Opening, clock: StageInProgress
) -> Restoration:
    """All that the engine may use, and the service that it restores."""
    return Restoration(
        rehearsal_id=rehearsal.id,
        recovery=rehearsal.recovery,
        reader=reader,
        manifest=opening.manifest,
        facts=rehearsal.plan.engine.read_facts(opening.manifest.engine_facts),
        log=opening.log,
        identity=opening.identity,
        steps=clock,
        spread=_spread,
        last_look=rehearsal.last_look,
        search_rows=rehearsal.plan.search_rows_limit.total_seconds()
        if rehearsal.plan.search_rows
        else 0.0,
    )


@task(name="node", task_run_name="{node.host}", cache_policy=NO_CACHE, persist_result=False)
def _on_node(do: Callable[[Node], None], node: Node) -> None:
    do(node)


def _spread(do: Callable[[Node], None], nodes: Sequence[Node]) -> None:
    """A Prefect task for each node, side by side; all have ended before one's error is raised."""
    futures = _on_node.map(unmapped(do), list(nodes))
    futures.wait()
    futures.result()


@stage(STAGE, retries=1, limit=24 * 3600)
def restore(rehearsal: Rehearsal, survey: Survey, reader: SetReader, opening: Opening) -> Restored:
    """Bring the service up. Run again, it first removes what the attempt before has made.

    Raises FoundProblems, and touches nothing, where preflight saw why no restore can succeed.
    """
    with rehearsal.clock.stage(STAGE) as clock:
        if survey.blockers:
            raise FoundProblems(STAGE, survey.blockers)
        using = restoration(rehearsal, reader, opening, clock)
        if reader.marked:
            with clock.step("clear"):
                for needs in survey.needs:
                    sweep_host(using.host(needs.host), rehearsal.id, remove=True, keep_marker=True)
        reader.begin(clock.moved)
        sealed = sum(item.sealed_bytes for item in opening.manifest.objects)
        clock.expect(sealed * len(survey.needs))
        service = rehearsal.plan.engine.restore(using)
        rehearsal.findings.add(*misshapen(replace(survey.topology, observed=service.nodes)))
        return service


def misshapen(topology: Topology) -> Iterator[Finding]:
    """What differs between the nodes that the plan has and those that there are.

    The plan's own shape is what counts: that it has fewer replicas than the source is in the
    record, and no finding.
    """
    for item in topology.difference or ():
        wanted, found = (
            f"{node.role} at {node.address}:{node.port}" if node else ""
            for node in (item.predicted, item.observed)
        )
        if item.moved:
            text = f"the plan has a {wanted}; there is a {found}"
            yield finding(FindingId.PLACEMENT_DROPPED, item.host, text, STAGE)
        else:
            text = f"{wanted} is not there" if wanted else f"{found} is there, and not in the plan"
            yield finding(FindingId.NODE_COUNT_DIFFERS, item.host, text, STAGE)
