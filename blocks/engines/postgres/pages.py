"""Every page of a restored server, read offline."""

import re
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged, unknown
from blocks.engines.postgres.cluster import START_SECONDS
from blocks.engines.postgres.facts import own
from blocks.engines.postgres.plan import Place
from blocks.engines.postgres.psql import CLUSTER, Psql
from blocks.engines.postgres.servers import RESTART_SECONDS, pg_ctl
from blocks.engines.postgres.sessions import ALONE
from blocks.engines.restoration import Restoration
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.remote.jobs import bears_stamp

_BAD_PAGES = re.compile(r"Bad checksums:\s+[1-9]")


def checksums(using: Restoration, place: Place, control: Psql) -> CheckSpec:
    """Every page agrees with its checksum. The server is stopped for it, and started again."""
    return CheckSpec(
        "page-checksums",
        "every page agrees with its checksum, read offline",
        partial(_checksums, using, place, control),
        FindingId.PAGE_CORRUPT,
        grows=True,
    )


def _checksums(using: Restoration, place: Place, control: Psql) -> Answer:
    if not own(using.facts).data_checksums:
        return unknown("the cluster has no data checksums (pg_checksums --enable)")
    host = control.host
    if not bears_stamp(host, place.data_dir, using.rehearsal_id):
        raise PermanentError(
            f"{place.data_dir} is not this rehearsal's any more: it was swept meanwhile",
            operation="page-checksums",
            domain=using.recovery.name,
            host=host.name,
            hint="rehearse again: this one was suspended for longer than its lease",
        )
    pg_ctl(host, place, "stop", RESTART_SECONDS, "-m", "fast")
    try:
        argv = [f"{place.bin_dir}/pg_checksums", "--check", "-D", place.data_dir]
        done = host.run(argv, check=False, timeout=START_SECONDS)
    finally:
        log = f"{using.work(host)}/postgres.log"
        argv = [*ALONE, f"{place.bin_dir}/pg_ctl", "-D", place.data_dir, "-w", "-s", "-l", log]
        argv += ["-t", f"{RESTART_SECONDS:.0f}", "start"]
        host.run(using.reader.stamped(argv), timeout=RESTART_SECONDS)
    control.value(CLUSTER, "SELECT 1")
    scanned = re.search(r"Blocks scanned:\s+(\d+)", done.text)
    wrong = list[str]()
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace").strip()
        text = said or f"pg_checksums ended with exit code {done.exit_code}"
        if not (_BAD_PAGES.search(done.text) or "could not read block" in said):
            return unknown(text[:300])
        wrong = text.splitlines()[:3]
    return judged(wrong, f"{scanned[1]} pages, none bad" if scanned else "none bad")
