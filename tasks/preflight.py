"""Preflight: look before anything is touched, and report everything that can be seen at once."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

from blocks.artifact.manifest import Manifest, ManifestForged, ManifestMalformed, digest_of
from blocks.block import is_ip
from blocks.engines.abilities import KnowsDangers
from blocks.engines.engine import Requirements
from blocks.engines.facts import Facts
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Topology
from blocks.evidence.uses import ORCHESTRATOR, ledger
from blocks.repositories.farside.binding import ForeignSet, KnownState
from blocks.repositories.farside.listing import choose
from blocks.repositories.farside.reader import SetReader
from blocks.stores.store import ObjectMissing
from tasks import source_clock
from tasks.context import Rehearsal, stage
from tasks.inspect import issuers, own, ownership, sets
from tasks.inspect.diagnose import FoundProblems, diagnose
from tasks.inspect.hosts import inspect_hosts
from tasks.inspect.inspection import STAGE, Inspection
from tasks.inspect.reachability import reach
from tasks.inspect.signs import peers_of_source, servers_of_source, signs_of_source
from tasks.liveness import look, others_running


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
    known: KnownState | None = None
    """Of a retained set, what it was when it was rehearsed before; None if it never was."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why."""


@stage(STAGE, retries=2, limit=300)
def preflight(rehearsal: Rehearsal) -> Survey:
    """Look at both domains; all that is seen becomes findings.

    Raises FoundProblems for what endangers production or makes a fence unsafe (see
    `Inspection.stopping`), and what keeps a backup from being taken or chosen.
    """
    with rehearsal.clock.stage(STAGE) as clock:
        seen = Inspection(ends=list(ownership.parts_of_source(rehearsal)))
        # A store that is the source's in truth is not even asked who else runs.
        if not seen.ends and (others := list(_others(rehearsal))):
            rehearsal.findings.add(*others)
            raise FoundProblems(STAGE, tuple(others))  # its source may be lost: a call would count
        if not seen.ends:
            seen.look_for_ends(rehearsal, partial(signs_of_source, into=seen))
        if any(item.id == FindingId.RECOVERY_IS_SOURCE for item in seen.ends):
            raise FoundProblems(STAGE, seen.stopping)  # before anything is written there
        rehearsal.lease.start()
        with clock.step("backup set"):
            survey = None if seen.ends else _survey(rehearsal, seen)
        known = survey if isinstance(survey, Survey) else None
        if known is not None:
            seen.look_for_ends(rehearsal, partial(servers_of_source, facts=known.facts, into=seen))
            if rehearsal.fresh:  # of a retained set the facts are of that time
                seen.look_for_ends(rehearsal, partial(peers_of_source, facts=known.facts))
            if seen.ends:
                raise FoundProblems(STAGE, seen.stopping)
        with clock.step("hosts"):
            inspect_hosts(rehearsal, known.needs if known else (), seen)
        with clock.step("fence"):
            seen.look_for_ends(rehearsal, _fence)
        with clock.step("keys and sets"):
            _inspect_sets(rehearsal, survey, seen)
        if known is not None:
            if strangers := rehearsal.plan.strangers(known.topology):
                text = "not among what the source consists of at this time"
                seen.unseen.append(f"topology.mapping of {', '.join(strangers)}: {text}")
            with clock.step("versions"):
                _compare(rehearsal, known, seen)
            if rehearsal.fresh:
                seen.look(rehearsal, partial(dangers, facts=known.facts))
        with clock.step("source's clock"):
            seen.look(rehearsal, source_clock.measure)
        seen.look(rehearsal, _control_plane, ownership.misplaced, ownership.shared_credentials)
        with clock.step("own machine"):
            seen.look(rehearsal, own.files_in_use, own.settings_in_use)
            seen.look(rehearsal, ownership.in_commands)
            seen.look(rehearsal, partial(issuers.issuers, into=seen))
        # What a killed rehearsal left includes its fence, which hides the source.
        dead = tuple(item for item in seen.found if item.id == FindingId.LEFTOVERS)
        if isinstance(survey, FarsideError) and not (seen.stopping or dead):
            seen.leave_to(survey)
        rehearsal.findings.add(*seen.all)
        if seen.stopping:
            raise FoundProblems(STAGE, seen.stopping)
        with clock.step("reach of the source"):
            reach(rehearsal)
        if isinstance(survey, FarsideError):
            raise FoundProblems(STAGE, dead) if dead else survey
        assert survey is not None  # it is looked for unless something stops
        return replace(survey, blockers=tuple(seen.blockers), unseen=tuple(seen.unseen))


def _others(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Rehearsals of this plan that run now. A store that cannot be asked is reported later."""
    with suppress(FarsideError):
        for rehearsal_id in others_running(rehearsal.plan, rehearsal.id):
            who = f"rehearsal {rehearsal_id} of this plan"
            text = f"{who} runs there now: its lease in the store is renewed"
            remedy = "Wait for its end; what must be gone at once is removed by flows.sweep --all."
            yield finding(
                FindingId.TARGET_OCCUPIED, rehearsal.recovery.name, text, STAGE, remedy=remedy
            )


def _fence(rehearsal: Rehearsal) -> Iterable[Finding]:
    """What the fence could not shut off. Raises as Fence.check."""
    fence, gap = rehearsal.plan.fence, rehearsal.plan.gap(rehearsal.id)
    fence.check(gap)
    for name, port in gap.endpoints:
        if not (fence.shuts_names or is_ip(name)):
            text = "the fence shuts off addresses, and this is a name, which others may share"
            remedy = "Add a fence of kind command for it in front of the other (kind: several)."
            yield finding(FindingId.FENCE_LEAKS, f"{name}:{port}", text, STAGE, remedy=remedy)


def _survey(rehearsal: Rehearsal, seen: Inspection) -> Survey | FarsideError:
    """What there is to restore, or why that cannot be told: all else is looked at in any case."""
    plan, select = rehearsal.plan, rehearsal.options.select
    try:
        if rehearsal.fresh:
            facts = plan.engine.survey(plan.source)
            needs = plan.engine.requirements(facts)
            return Survey(facts, plan.topology_from(facts), needs, None, select)
        chosen = choose(plan.recovery.store, plan.binding, select)
        for error in chosen.passed_over:
            rehearsal.findings.add(*diagnose(error, STAGE, plan.source.name))
        reader = SetReader(plan.recovery, plan.binding, chosen.set_id, rehearsal.id)
        manifest = sets.authentic(rehearsal, reader)
        known = sets.known_state(rehearsal, chosen.set_id, seen)
        if known is not None:
            known.compare(digest_of(manifest), _log_sequence(reader) or known.log_sequence)
        facts = plan.engine.read_facts(manifest.engine_facts)
        needs = plan.engine.requirements(facts)
        return Survey(facts, plan.topology_from(facts), needs, manifest, chosen.how, known=known)
    except FarsideError as error:
        return error


def _log_sequence(reader: SetReader) -> int | None:
    """The number of the log's index; None if it is missing or bad, which `_defects` tells."""
    with suppress(ObjectMissing, ManifestForged, ManifestMalformed, ForeignSet):
        return reader.log().sequence
    return None


def _inspect_sets(
    rehearsal: Rehearsal, survey: Survey | FarsideError | None, seen: Inspection
) -> None:
    # A source that cannot be asked for its facts has its finding: not a second one of its vault.
    of_source = rehearsal.fresh and isinstance(survey, Survey)
    seen.look(rehearsal, partial(sets.secrets, of_source=of_source))
    seen.look_for_blockers(rehearsal, sets.locked_keys)
    seen.look(rehearsal, sets.locked_secrets, sets.exposed_secrets)
    seen.look(rehearsal, sets.record_signer)
    if survey is None or isinstance(survey, ManifestForged | ManifestMalformed | ForeignSet):
        return  # nothing is read from a store that is the source's in truth, or was meddled with
    chosen = survey.manifest if isinstance(survey, Survey) else None
    if of_source:
        seen.ends += sets.writes(rehearsal)
    if isinstance(survey, Survey) and not seen.ends:
        seen.look(rehearsal, sets.evidence)
    seen.look(rehearsal, partial(sets.retained, chosen=chosen))
    if not rehearsal.fresh:  # else the set that is taken now shows how copying works
        try:
            seen.found += sets.copies(rehearsal)
        except FarsideError as error:
            # What has crossed can be rehearsed even if the source is lost already.
            seen.unseen.append(f"whether the source's newest set has crossed: {error.message}")
    if chosen is not None:
        seen.look_for_blockers(rehearsal, partial(_defects, manifest=chosen))
    if of_source:
        seen.look(rehearsal, _left_in_source)


def _compare(rehearsal: Rehearsal, survey: Survey, seen: Inspection) -> None:
    plan = rehearsal.plan

    def compared(_: Rehearsal) -> Iterator[Finding]:
        for item in plan.engine.compare(survey.facts, plan.recovery, plan.source.belongings):
            if item.id == FindingId.ENGINE_VERSION and item.severity is Severity.CRITICAL:
                seen.blockers.append(item.at(STAGE))
            yield item.at(STAGE)

    seen.look(rehearsal, compared)


def dangers(rehearsal: Rehearsal, facts: Facts) -> Iterator[Finding]:
    """What makes a backup of the live source dangerous."""
    engine = rehearsal.plan.engine
    if isinstance(engine, KnowsDangers):
        for item in engine.dangers(facts, rehearsal.source):
            yield item.at(STAGE)


def _left_in_source(rehearsal: Rehearsal) -> Iterator[Finding]:
    """What dead rehearsals left in the source's server, where it may do harm for ever."""
    plan = rehearsal.plan
    ids = plan.engine.leftovers(plan.source)
    seen = look(plan, (plan.recovery, plan.source)) if ids else None
    for rehearsal_id in ids:
        if (
            seen is not None
            and rehearsal_id != rehearsal.id
            and seen.state(rehearsal_id) != "alive"
        ):
            who = f"rehearsal {rehearsal_id}"
            text = f"{who} left something in the server: `python -m flows.sweep` removes it"
            yield finding(FindingId.LEFTOVERS, f"{plan.source.name} server", text, STAGE)


def _defects(rehearsal: Rehearsal, manifest: Manifest) -> Iterable[Finding]:
    plan = rehearsal.plan
    reader = SetReader(plan.recovery, plan.binding, manifest.set_id, rehearsal.id)
    return sets.objects(reader, manifest, reader.log(), STAGE)


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
            yield finding(FindingId.CONTROL_PLANE_IN_SOURCE, what, f"it is in {path}", STAGE)
    url = urlsplit(get_current_settings().api.url or "")
    if not url.hostname:
        return
    ledger().note("address", f"{url.hostname}:{url.port or 443}", ORCHESTRATOR)
    if source.owns_name(url.hostname):
        text = f"its API is {url.scheme}://{url.hostname}:{url.port}"
        yield finding(FindingId.CONTROL_PLANE_IN_SOURCE, "Prefect's server", text, STAGE)
