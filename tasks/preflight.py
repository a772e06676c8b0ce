"""Preflight: look before anything is touched, and report everything that can be seen at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

from blocks.artifact.manifest import Manifest, ManifestForged, ManifestMalformed
from blocks.base import is_ip
from blocks.engines.base import Facts, Requirements
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.evidence.record import Topology
from blocks.evidence.uses import ORCHESTRATOR, ledger
from blocks.sets import SetReader, choose
from tasks import dependence, inspect_sets
from tasks.diagnose import FoundProblems
from tasks.inspect_hosts import inspect_hosts
from tasks.inspection import STAGE, Inspection
from tasks.rehearsal import Rehearsal, claim, running_plan, stage


@dataclass(frozen=True, slots=True)
class Survey:
    """What preflight learned: the facts that the restore must match, and the retained set."""

    facts: Facts
    topology: Topology
    """What the source consists of, and what of it goes where; nothing is observed yet."""
    needs: tuple[Requirements, ...]
    manifest: Manifest | None
    """That of the retained set to rehearse; None when a fresh one is to be taken."""
    selection: str
    blockers: tuple[Finding, ...] = ()
    """Findings with which no restore can succeed: what can be learned until then, is."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why."""


@stage(STAGE, retries=2, limit=300)
def preflight(rehearsal: Rehearsal) -> Survey:
    """Look at both domains; all that is seen becomes findings.

    Raises FoundProblems where the recovery store is the source's own, or where another rehearsal
    of the plan runs, and what keeps a backup from being taken or chosen.
    """
    with rehearsal.clock.stage(STAGE) as clock:
        claim(rehearsal)
        seen = Inspection(ends=list(dependence.store_of_source(rehearsal)))
        with clock.step("backup set"):
            survey = None if seen.ends else _survey(rehearsal)
        known = survey if isinstance(survey, Survey) else None
        with clock.step("hosts"):
            inspect_hosts(rehearsal, known.needs if known else (), seen)
        with clock.step("fence"):
            seen.look_for_blockers(rehearsal, _fence)
        with clock.step("keys and sets"):
            _inspect_sets(rehearsal, survey, seen)
        if known is not None:
            if strangers := rehearsal.plan.strangers(known.topology):
                text = "not among what the source consists of at this time"
                seen.unseen.append(f"topology.mapping of {', '.join(strangers)}: {text}")
            with clock.step("versions"):
                _compare(rehearsal, known, seen)
        seen.look(rehearsal, _control_plane, dependence.misplaced, dependence.shared_credentials)
        rehearsal.findings.add(*seen.all)
        if isinstance(survey, FarsideError):
            # What a killed rehearsal left includes its fence, which hides the source.
            dead = tuple(item for item in seen.found if item.id == "leftovers")
            raise FoundProblems(STAGE, dead) if dead else survey
        if survey is None or seen.ends:
            raise FoundProblems(STAGE, tuple(seen.ends))
        return replace(survey, blockers=tuple(seen.blockers), unseen=tuple(seen.unseen))


def _fence(rehearsal: Rehearsal) -> Iterable[Finding]:
    """What the fence could not shut off. Raises as Fence.check."""
    fence, gap = rehearsal.plan.fence, rehearsal.plan.gap(rehearsal.id)
    fence.check(gap)
    for name, port in gap.endpoints:
        if not (fence.shuts_names or is_ip(name)):
            text = "the fence shuts off addresses, and this is a name, which others may share"
            remedy = "Add a fence of kind command for it in front of the other (kind: several)."
            yield finding("fence-leaks", f"{name}:{port}", text, STAGE, remedy=remedy)


def _survey(rehearsal: Rehearsal) -> Survey | FarsideError:
    """What there is to restore, or why that cannot be told: all else is looked at in any case."""
    plan, select = rehearsal.plan, rehearsal.options.select
    try:
        if rehearsal.fresh:
            facts = plan.engine.survey(plan.source)
            needs = plan.engine.requirements(facts)
            return Survey(facts, plan.topology_from(facts), needs, None, select)
        chosen = choose(plan.recovery.store, plan.name, select)
        reader = SetReader(plan.recovery, plan.name, chosen.set_id, rehearsal.id)
        manifest = reader.manifest(plan.keys.signer)
        facts = manifest.engine_facts
        needs = plan.engine.requirements(facts)
        return Survey(facts, plan.topology_from(facts), needs, manifest, chosen.how)
    except FarsideError as error:
        return error


def _inspect_sets(
    rehearsal: Rehearsal, survey: Survey | FarsideError | None, seen: Inspection
) -> None:
    # A source that cannot be asked for its facts has its finding: not a second one of its vault.
    of_source = rehearsal.fresh and isinstance(survey, Survey)
    seen.look(rehearsal, partial(inspect_sets.secrets, of_source=of_source))
    if survey is None or isinstance(survey, ManifestForged | ManifestMalformed):
        return  # nothing is read from a store that is the source's in truth, or was meddled with
    chosen = survey.manifest if isinstance(survey, Survey) else None
    if isinstance(survey, Survey):
        seen.look(rehearsal, inspect_sets.evidence)
    seen.look(rehearsal, partial(inspect_sets.recipients, chosen=chosen))
    if not rehearsal.fresh:  # else the set that is taken now shows how copying works
        try:
            seen.found += inspect_sets.copies(rehearsal)
        except FarsideError as error:
            # A source that is lost already keeps nobody from rehearsing what has crossed.
            seen.unseen.append(f"whether the source's newest set has crossed: {error.message}")
    if chosen is not None:
        seen.look_for_blockers(rehearsal, partial(_defects, manifest=chosen))
    if of_source:
        seen.look(rehearsal, _left_in_source)


def _compare(rehearsal: Rehearsal, survey: Survey, seen: Inspection) -> None:
    plan = rehearsal.plan

    def compared(_: Rehearsal) -> Iterator[Finding]:
        for item in plan.engine.compare(survey.facts, plan.recovery, plan.source.belongings):
            if item.id == "engine-version" and item.severity is Severity.CRITICAL:
                seen.blockers.append(item)
            yield item

    seen.look(rehearsal, compared)


def _left_in_source(rehearsal: Rehearsal) -> Iterator[Finding]:
    """What dead rehearsals left in the source's server, where it may do harm for ever."""
    plan = rehearsal.plan
    for id in plan.engine.remains(plan.source):
        if not any(running_plan(host, id) for host in plan.recovery.hosts):
            text = (
                f"rehearsal {id} left something in the server: `python -m flows.sweep` removes it"
            )
            yield finding("leftovers", f"{plan.source.name} server", text, STAGE)


def _defects(rehearsal: Rehearsal, manifest: Manifest) -> Iterable[Finding]:
    plan = rehearsal.plan
    reader = SetReader(plan.recovery, plan.name, manifest.set_id, rehearsal.id)
    return inspect_sets.objects(reader, manifest, reader.log(plan.keys.signer), STAGE)


def _control_plane(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Parts of farside itself that would be lost with the source."""
    plan, source = rehearsal.plan, rehearsal.source
    places = {
        "the records' folder": rehearsal.options.results.resolve(),
        "farside": Path(__file__).resolve().parents[1],
    }
    if plan.heartbeat is not None:
        places["the heartbeat's ledger"] = plan.heartbeat.ledger
    for what, path in places.items():
        if source.belongings.paths_in(str(path)):
            yield finding("control-plane-in-source", what, f"it is in {path}", STAGE)
    url = urlsplit(get_current_settings().api.url or "")
    if not url.hostname:
        return
    ledger().note("address", f"{url.hostname}:{url.port or 443}", ORCHESTRATOR)
    if source.owns_name(url.hostname):
        text = f"its API is {url.scheme}://{url.hostname}:{url.port}"
        yield finding("control-plane-in-source", "Prefect's server", text, STAGE)
