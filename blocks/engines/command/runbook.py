"""The commands that restore a set by hand, without farside."""

import re
import shlex

from blocks.artifact.manifest import Manifest
from blocks.domain import FailureDomain
from blocks.engines.command.facts import read
from blocks.engines.command.plan import TargetSystem
from blocks.engines.command.running import filled
from blocks.evidence.record import RunbookStep
from blocks.repositories.farside.reader import fetch_commands


def commands(
    manifest: Manifest, recovery: FailureDomain, target: TargetSystem
) -> tuple[RunbookStep, ...]:
    """Fetch, open and restore, as a shell does it."""
    (sealed,) = manifest.objects
    keys = " ".join(shlex.quote(volume.key) for volume in sealed.volumes)
    where = f"{recovery.name}/{target.host}"
    words = filled(target, target.restore_argv, "$WORK", "$DIRECTORY")
    password = target.password
    told = f"PASSWORD: a file whose first line is {password}, from the vault of {recovery.name}"
    return (
        RunbookStep(
            f"Prepare: {read(manifest.engine_facts).version}, set {manifest.set_id}",
            (
                "set -eu; umask 077; WORK=$(mktemp -d)",
                *([f": ${{PASSWORD:?}} # {told}"] if password else []),
                f"DIRECTORY=${{DIRECTORY:-{shlex.quote(target.directory)}}}",
                'test ! -e "$DIRECTORY" ||'
                ' { echo "$DIRECTORY exists: choose another DIRECTORY" >&2; exit 1; }',
                'mkdir -p "$DIRECTORY"',
                *fetch_commands(recovery.store, manifest.plan, manifest.set_id),
            ),
            where,
        ),
        RunbookStep(
            "Fetch, open and restore",
            (
                f'fetch {keys} | unseal > "$WORK/backup"',
                " ".join(_quoted(word) for word in words) + (' < "$PASSWORD"' if password else ""),
            ),
            where,
        ),
    )


def _quoted(word: str) -> str:
    """A word for a shell in which only $WORK and $DIRECTORY are to be filled in."""
    parts = re.split(r"(\$WORK|\$DIRECTORY)", word)
    return "".join(
        f'"{part}"' if part in ("$WORK", "$DIRECTORY") else shlex.quote(part)
        for part in parts
        if part
    )
