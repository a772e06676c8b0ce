"""A system that farside does not know, by its plan's commands alone: Redis, from Debian."""

import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from blocks.engines.checks import CheckSpec, run_check
from blocks.engines.command.plan import Question
from blocks.engines.command.restored import answer_of
from blocks.evidence.record import CheckStatus
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.plan.loading import load_plan
from deployments import lab
from deployments.lab.places import Places
from tests.blocks.engines.conformance import EngineConformance
from tests.blocks.engines.worlds import need_debian

PORT, KEYS = 6399, 1000
ENGINES = Path(lab.__file__).parents[2] / "docs" / "engines.md"
SERVE = r"""
mkdir -p "$1" && cd "$1"
setsid redis-server --bind "$2" --port "$3" --dir "$1" --save "" \
  --appendonly no --protected-mode no >/dev/null 2>&1 </dev/null &
until redis-cli -h "$2" -p "$3" ping 2>/dev/null | grep -q PONG; do sleep 0.1; done
"""
BEAT = r"""
beat() { redis-cli -h "$1" -p "$2" set beat "$(date -u +%FT%T.%N | cut -c1-26)"; }
beat "$@"
while sleep 0.2; do beat "$@"; done >/dev/null 2>&1 </dev/null &
"""


def engine(document: Any, places: Places) -> Any:
    """The example of docs/engines.md, at the lab's addresses."""
    source, target = (document[side]["hosts"][0] for side in ("source", "recovery"))
    (text,) = re.findall(r"```yaml\n(engine:.*?)```", ENGINES.read_text(), re.DOTALL)
    for shown, here in (
        ("10.10.0.11", source["address"]),
        ("10.20.0.11", target["address"]),
        ("/var/lib/rehearsal/redis", str(places.host("west", "db1") / "redis")),
        ("redis-password", "shop-password"),
    ):
        assert shown in text
        text = text.replace(shown, here)
    return yaml.safe_load(text)["engine"]


@pytest.mark.essential
class TestRedis(EngineConformance):
    plan_name = "redis"
    growing: ClassVar = frozenset({"fetch and open", "restore"})
    runbook_variables: ClassVar = {"DIRECTORY": "{place}/redis"}
    runbook_secrets: ClassVar = {"PASSWORD": "shop-password"}
    runbook_proof: ClassVar = (
        'REDISCLI_AUTH=$(cat "$PASSWORD"); export REDISCLI_AUTH',
        'redis-cli -s "$DIRECTORY/socket" dbsize',
    )
    runbook_end = 'redis-cli -s "$DIRECTORY/socket" shutdown nosave'
    proven = rf"{KEYS + 1}\n"

    @pytest.fixture(scope="class")
    @classmethod
    def plan_path(cls, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
        lab.up(places.root)
        return redis_plan(places, tmp_path_factory.mktemp("plans"))


@pytest.mark.parametrize(
    ("script", "status", "actual"),
    [
        ("echo ' yes '", CheckStatus.PASSED, "yes"),
        ("echo no", CheckStatus.FAILED, "no"),
        ("echo yes; echo '3 rows differ' >&2; exit 3", CheckStatus.FAILED, "3 rows differ"),
        ("no-such-program", CheckStatus.UNKNOWN, "could not run: "),
        ("kill -9 $$", CheckStatus.UNKNOWN, "could not run: "),
    ],
)
def test_what_a_verifying_command_says(script: str, status: CheckStatus, actual: str) -> None:
    question = Question(name="all-there", argv=("sh", "-c", script), expected="yes")
    host = LocalHost(name="here")
    ask = partial(answer_of, question.expected, lambda: host.run(question.argv).text.strip())
    check = run_check(CheckSpec(question.name, question.expected, ask))
    assert (check.status, actual in str(check.actual)) == (status, True), check


def redis_plan(places: Places, folder: Path) -> Path:
    """Redis runs in the lab's east; the plan that restores it in west. Skips without Debian's."""
    need_debian("redis-server", "/usr/bin/redis-server")
    document = yaml.safe_load(lab.plan_path(places.root, "postgres").read_text())
    del document["heartbeat"]
    document |= {
        "name": "redis",
        "engine": engine(document, places),
        "secrets": [],
        "checks": [{"name": "all", "database": "", "sql": "dbsize", "expected": str(KEYS + 1)}],
    }
    path = folder / "redis.yaml"
    path.write_text(yaml.safe_dump(document))
    plan = load_plan(path)
    serve(plan.source.host("db1"), places)
    plan.source.close()
    return path


def serve(host: Host, places: Places) -> None:
    """Redis in east, with keys, and somebody who writes to it until east is lost."""
    address = str(host.address)
    folder = str(places.host("east", "db1") / "redis")
    host.run(["sh", "-ec", SERVE, "sh", folder, address, str(PORT)])
    lines = "".join(f"set key:{n} 'value {n}'\n" for n in range(1, KEYS + 1))
    host.run(["redis-cli", "-h", address, "-p", str(PORT)], input=lines.encode())
    host.run(["sh", "-ec", BEAT, "sh", address, str(PORT)])
