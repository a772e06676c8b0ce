"""Break glass: the commands that restore a backup by hand with curl, age, zstd and MariaDB."""

import re
import shlex

from blocks.artifact.manifest import Manifest
from blocks.domain import FailureDomain
from blocks.engines.galera.facts import GaleraFacts
from blocks.engines.galera.plan import TargetCluster
from blocks.engines.galera.restore import FORGET, administrators, configuration
from blocks.evidence.record import RunbookStep
from blocks.repositories.farside.reader import fetch_commands


def commands(
    manifest: Manifest, facts: GaleraFacts, recovery: FailureDomain, target: TargetCluster
) -> tuple[RunbookStep, ...]:
    """Shell commands for the first node, to be run in one shell; then it is a cluster of one.

    `BIN`, `SERVER`, `DATA`, `ADDRESS` and `PORT` may be set before. More nodes join with a
    configuration of their own and an empty directory: the first one sends them all of it.
    """
    first, quote = target.nodes[0], shlex.quote
    where = f"{recovery.name}/{first.host}, as the user who will own the database"
    (backup,) = manifest.objects
    keys = " ".join(quote(volume.key) for volume in backup.volumes)
    return (
        RunbookStep(
            f"Prepare: MariaDB {facts.version}, set {manifest.set_id}",
            (
                "set -eu; umask 077; ACCOUNT=$(id -un); WORK=$(mktemp -d); SOCKET=$WORK/socket",
                f"BIN=${{BIN:-{quote(target.bin_dir)}}}; DATA=${{DATA:-{quote(first.data_dir)}}}",
                f"SERVER=${{SERVER:-{quote(target.server)}}}",
                f"ADDRESS=${{ADDRESS:-{quote(first.address)}}}; PORT=${{PORT:-{first.port}}}",
                'case $ADDRESS in *:*) AT="[$ADDRESS]";; *) AT=$ADDRESS;; esac',
                'test ! -e "$DATA" || { echo "$DATA exists: choose another DATA" >&2; exit 1; }',
                *fetch_commands(recovery.store, manifest.plan, manifest.set_id),
            ),
            where,
        ),
        RunbookStep(
            "Fetch, open and make consistent",
            (
                'mkdir -p "$DATA"',
                f'fetch {keys} | unseal | "$BIN/mbstream" -x -C "$DATA"',
                'PLUGINS=$("$SERVER" --no-defaults --verbose --help'
                " | sed -n 's/^plugin-dir *//p')",
                '"$BIN/mariadb-backup" --prepare --target-dir="$DATA" --plugin-dir="$PLUGINS"',
                f'sh -c {quote(FORGET)} sh "$DATA"',
            ),
            where,
        ),
        RunbookStep(
            "Configure, and let the own account in by its socket",
            _configure(_configuration(manifest, facts, target)),
            where,
        ),
        RunbookStep(
            "Start as a new cluster and look",
            (
                '(cd "$DATA" && exec "$SERVER" --defaults-file="$DATA.cnf" --wsrep-new-cluster)'
                ' > "$DATA.log" 2>&1 &',
                'MARIADBD=$!; until "$BIN/mariadb" --no-defaults --socket="$SOCKET" --batch'
                " --execute=\"SHOW STATUS LIKE 'wsrep_local_state_comment'\" | grep -q Synced;"
                ' do kill -0 "$MARIADBD"; sleep 1; done',
            ),
            where,
        ),
    )


def _configuration(manifest: Manifest, facts: GaleraFacts, target: TargetCluster) -> str:
    """That of the first node, with the runbook's variables in it."""
    places = {"data_dir": "$DATA", "address": "$AT", "port": "$PORT"}
    node = target.nodes[0].model_copy(update=places)
    text = configuration(
        facts,
        target.model_copy(update={"nodes": (node,)}),
        node,
        cluster=f"by-hand-{manifest.set_id}",
        socket="$SOCKET",
        work="$WORK",
        account="$ACCOUNT",
        pool=2**28,
    )
    # Brackets belong to a port behind them: here is none.
    return text.replace('bind-address = "$AT"', 'bind-address = "$ADDRESS"')


def _configure(text: str) -> tuple[str, ...]:
    """Shell commands that write a configuration, and make the own account an administrator."""
    sql = administrators(["$ACCOUNT"]).splitlines()
    return (
        ': > "$DATA.cnf"; say() { printf \'%s\\n\' "$1"; }',
        *(f'say {_word(line)} >> "$DATA.cnf"' for line in text.splitlines()),
        "{ "
        + " ".join(f"say {_word(line)};" for line in sql)
        + ' } | "$SERVER" --defaults-file="$DATA.cnf" --bootstrap --wsrep-on=OFF'
        " --wsrep-provider=none --default-time-zone=SYSTEM",
    )


_FILLED = ("$DATA", "$AT", "$ADDRESS", "$PORT", "$SOCKET", "$WORK", "$ACCOUNT")


def _word(line: str) -> str:
    """A line as one word for a shell, in which only the runbook's own variables are filled in."""
    parts = re.split("(" + "|".join(map(re.escape, _FILLED)) + ")", line)
    return (
        "".join(f'"{part}"' if part in _FILLED else shlex.quote(part) for part in parts if part)
        or "''"
    )
