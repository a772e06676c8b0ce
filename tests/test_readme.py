"""README and docs are true: the plan is a plan, the commands run, the options exist."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from blocks.plan.loading import load_plan
from deployments import lab
from deployments.lab.parts import galera
from tests import mechanisms

ROOT = Path(__file__).parents[1]
PAGES = [
    (ROOT / "README.md").read_text(),
    *(p.read_text() for p in sorted((ROOT / "docs").glob("*.md"))),
]
BLOCKS = [item for text in PAGES for item in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)]
SHELL = [text for language, text in BLOCKS if language == "sh"]
COMMANDS = [line.partition("  #")[0].strip() for text in SHELL for line in text.splitlines()]


def block(start: str) -> list[str]:
    """The commands of the shell block whose first command is `start`, or else begins with it."""
    blocks = [[line.partition("  #")[0].strip() for line in text.splitlines()] for text in SHELL]
    found = [lines for lines in blocks if lines[0].startswith(start)]
    assert found, f"no block starts with {start}"
    return min(found, key=lambda lines: lines[0] != start)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[dict[str, str]]:
    """A new user's shell, with a lab of its own and the README's own Prefect server."""
    # Under /tmp, not under pytest's private folder: as root the lab's services run as nobody.
    lab = Path("/tmp") / f"farside-readme-{os.getpid()}"
    (start,) = block("prefect server start")
    export, *_ = block("export PREFECT_API_URL=")
    served = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin",
        "HOME": str(place),
        "PREFECT_HOME": str(place / "prefect"),
        "FARSIDE_LAB": str(lab),
        "LANG": "C.UTF-8",
        "FARSIDE_LAB_LOAD": os.environ["FARSIDE_LAB_LOAD"],
    }
    environment = {**served, "PREFECT_API_URL": export.partition("=")[2]}
    with running(start, served):
        try:
            _wait_for_server(environment)
            yield environment
        finally:
            shell("python -m deployments.lab down", served)


@pytest.fixture(autouse=True)
def _no_lab_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one test leaves when it fails must not fail the next."""
    yield
    if "environment" in request.fixturenames:
        shell("python -m deployments.lab down", request.getfixturevalue("environment"))


@contextmanager
def running(command: str, environment: dict[str, str]) -> Iterator[None]:
    """A command in a terminal of its own, ended with everything that it started."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # a worker of Prefect's now and then misses it
                os.killpg(process.pid, signal.SIGKILL)


def shell(command: str, environment: dict[str, str], seconds: float = 240) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_plan_is_a_plan(tmp_path: Path) -> None:
    text = next(text for language, text in BLOCKS if language == "yaml" and "\nsource:" in text)
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    assert load_plan(path).name == yaml.safe_load(text)["name"]


def test_every_option_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "flows.rehearse", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    used = {
        option
        for line in COMMANDS
        if line.startswith("python -m flows.rehearse")
        for option in re.findall(r"--[a-z-]+", line)
    }
    assert used
    assert {option for option in used if option not in shown} == {"--help"} - {"--help"}


@mechanisms.README
@pytest.mark.slow(240)
@pytest.mark.timeout(1800)
def test_everyday_commands(environment: dict[str, str], tmp_path: Path) -> None:
    """The lab kept up by hand, and every way of calling shown, on a smaller database."""
    results = f" --results {tmp_path}"
    lines = block("python -m deployments.lab up")
    assert lines[0] == "python -m deployments.lab up"
    shell(f"{lines[0]} --scale 1", environment)
    for line in lines[1:-1]:
        said = shell(line + ("" if "--list" in line else results), environment)
        if "flows.sweep" in line:
            assert "kept       sets in west: 1 by last: 3" in said
        else:
            assert "VERIFIED" in said or line.endswith("--list-backups")
    for line in block("python -m flows.rehearse --help"):
        if "--keep" in line:
            assert "kept until" in shell(line + results, environment)
            shell("python -m flows.sweep --all", environment)
        elif "--json" in line:
            shell(line.replace("record.json", f"{tmp_path}/record.json") + results, environment)
            assert '"verdict": "verified"' in (tmp_path / "record.json").read_text()
        elif "flows.rehearse --" in line and "--help" not in line:
            assert "VERIFIED" in shell(line + results, environment)
        else:
            shell(line, environment)
    (code,) = (text for language, text in BLOCKS if language == "python" and "rehearsals" in text)
    code = code.replace('"rehearsals"', repr(str(tmp_path)))
    assert "verified" in shell(f"python - <<'END'\n{code}\nEND", environment)
    shell(lines[-1], environment)
    assert not Path(environment["FARSIDE_LAB"]).exists()


@mechanisms.README
@pytest.mark.usefixtures("can_have_namespaces")
def test_hosts_with_a_network_of_their_own(environment: dict[str, str], tmp_path: Path) -> None:
    """As shown, on a smaller database."""
    up, wan, rehearse, down = block("python -m deployments.lab up --network netns")
    shell(f"{up} --scale 1", environment)
    shell(wan, environment)
    assert "VERIFIED" in shell(f"{rehearse} --rto 1h --results {tmp_path}", environment)
    shell(down, environment)
    assert not Path(environment["FARSIDE_LAB"]).exists()


@mechanisms.README
@pytest.mark.slow(240)
def test_other_shapes(environment: dict[str, str], tmp_path: Path) -> None:
    """In one small lab, to which the second plan adds what it needs."""
    shell("python -m deployments.lab up --scale 1", environment)
    lines = block("python -m flows.rehearse standbys")
    if not Path(galera.SERVER).exists() and not os.environ.get("FARSIDE_NO_SKIPS"):
        lines = [line for line in lines if "galera" not in line]
    for line in lines:
        assert "VERIFIED" in shell(f"{line} --rto 1h --rpo 1h --results {tmp_path}", environment)
    shell("python -m deployments.lab down", environment)


@mechanisms.README
def test_drills(environment: dict[str, str]) -> None:
    """Some of them; tests/flows/test_drill.py runs the whole board."""
    listing, some, *_ = block("python -m flows.drill --list")
    assert "key-stale" in shell(listing, environment)
    assert "2 of 2 drills are good" in shell(some, environment)


@mechanisms.README
def test_worker_and_deployment(environment: dict[str, str], place: Path) -> None:
    """A run triggered through the API is taken by a worker and completes."""
    _, *commands, worker = block("export PREFECT_API_URL=")
    for command in commands:
        shell(command, environment)
    _wait_for_scheduled_runs(environment)
    with running(worker, environment):
        run = "prefect deployment run rehearse/nightly --param scale=1 --watch"
        said = shell(f"{run} --param results={place}/results", environment)
    (record,) = (place / "results").glob("*.json")
    assert '"trigger": "nightly"' in record.read_text(), said
    assert '"verdict": "verified"' in record.read_text()


@mechanisms.README
def test_a_plan_saved_as_a_block(environment: dict[str, str], tmp_path: Path) -> None:
    """The lab's plan, under the name that is shown."""
    shell("python -m deployments.lab up --scale 1", environment)
    register, save, rehearse = block("prefect block register")
    assert "farside plan" in shell(register, environment)
    plan = lab.plan_path(Path(environment["FARSIDE_LAB"]), "postgres")
    shell(save.replace("shop.yaml", str(plan)), environment)
    said = shell(f"{rehearse} --rto 1h --rpo 1h --results {tmp_path}", environment)
    assert "VERIFIED" in said
    shell("python -m deployments.lab down", environment)


def _wait_for_scheduled_runs(environment: dict[str, str]) -> None:
    """The server's scheduler works with the libraries that are installed: no pin is needed."""
    give_up = time.monotonic() + 120
    listing = "COLUMNS=200 prefect flow-run ls --state Scheduled"
    while "rehearse" not in shell(listing, environment):
        assert time.monotonic() < give_up, "no run was scheduled"
        time.sleep(2)


def _wait_for_server(environment: dict[str, str]) -> None:
    for _ in range(180):
        done = subprocess.run(
            ["curl", "-fs", f"{environment['PREFECT_API_URL']}/health"],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError("the Prefect server does not answer")
