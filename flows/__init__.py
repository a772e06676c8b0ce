"""Sentences: `python -m flows.NAME` runs each."""

import os

# Prefect reads its settings when it is first imported, which is after this.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The first start of a temporary server takes 20 s on a small machine, minutes on a busy one.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "flows,tasks,blocks")
