"""What earlier rehearsals of a plan showed: records, each proven where the plan pins who signs."""

from dataclasses import dataclass
from pathlib import Path

from blocks.artifact.signing import parse_public_key
from blocks.errors import PermanentError
from blocks.evidence.record import Record, load, load_all
from blocks.evidence.signature import load_signed


@dataclass(frozen=True, slots=True)
class History:
    """The records of one plan, oldest first, and those that do not count: file and reason."""

    records: tuple[Record, ...]
    left_out: tuple[str, ...] = ()


def history(folder: Path, plan: str, signer: str | None) -> History:
    """The records of `plan` in `folder`; with a `signer` (public key) only those that it signed.

    Raises KeyMalformed; and as `load_all` where no signer is pinned: then a file that cannot be
    read may be evidence.
    """
    if signer is None:
        return History(tuple(item for item in load_all(folder) if item.plan.name == plan))
    parse_public_key(signer)
    records, left_out = list[Record](), list[str]()
    for path in sorted(folder.glob("*.json")):
        try:
            record = load_signed(path, signer)
        except PermanentError as error:
            if _says(path) in (plan, None):
                left_out.append(f"{path.name}: {error.message}")
        else:
            if record.plan.name == plan:
                records.append(record)
    records.sort(key=lambda record: (record.started_at, record.rehearsal_id))
    return History(tuple(records), tuple(left_out))


def _says(path: Path) -> str | None:
    """The plan that a file names that nothing proves; None where it is no record."""
    try:
        return load(path).plan.name
    except PermanentError:
        return None
