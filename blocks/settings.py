"""Settings that a site or a test may change through the environment.

Each is read when it is used, so that a test's setting reaches the processes that it starts.
"""

import math
import os

from blocks.errors import PermanentError


class BadSetting(PermanentError):
    """A setting of the environment is not what it must be: nothing can be done with it."""


def lease_seconds() -> float:
    """How long a rehearsal counts as running after it last renewed its lease.

    `FARSIDE_LEASE_SECONDS`, default 120. Raises BadSetting for what is no positive number.
    """
    return _seconds("FARSIDE_LEASE_SECONDS", 120.0)


def teardown_seconds() -> float:
    """How long each part of a teardown may take; what then goes on is reported and left behind.

    `FARSIDE_TEARDOWN_SECONDS`, default 1800: removing terabytes takes long, and delays nothing that
    production waits for. Raises as `lease_seconds`.
    """
    return _seconds("FARSIDE_TEARDOWN_SECONDS", 1800.0)


def connect_seconds() -> float:
    """How long a host may take for each step of a connection, and to start a command.

    `FARSIDE_CONNECT_SECONDS`, default 15. Raises as `lease_seconds`.
    """
    return _seconds("FARSIDE_CONNECT_SECONDS", 15.0)


def trusted_plans() -> frozenset[str] | None:
    """Digests of the saved plans that this worker runs; None: any that Prefect's API gives it.

    `FARSIDE_TRUSTED_PLANS`, separated by commas or spaces; set and empty, it runs none.
    """
    text = os.environ.get("FARSIDE_TRUSTED_PLANS")
    return None if text is None else frozenset(text.replace(",", " ").split())


def lab_load() -> float:
    """Transactions a second of the lab's live load on PostgreSQL.

    `FARSIDE_LAB_LOAD`, default 100; several labs side by side leave a small machine no time at it.
    Raises BadSetting for what is no positive number.
    """
    return _positive("FARSIDE_LAB_LOAD", 100.0, "transactions a second")


def check() -> None:
    """Raise BadSetting for the first setting that is not what it must be."""
    for setting in (lease_seconds, teardown_seconds, connect_seconds, lab_load):
        setting()


def _seconds(name: str, default: float) -> float:
    return _positive(name, default, "seconds")


def _positive(name: str, default: float, unit: str) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise BadSetting(f"{name} must be a number of {unit} above zero, not {text!r}")
    return value
