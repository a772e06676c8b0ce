"""A whole rehearsal, and how much of it is farside and Prefect.

Total: from the start of a `python -m flows.rehearse` to its end, with a Prefect home that is new.
Lab: seconds inside `lab.up` and `lab.down`, which that command calls before and after the flow, and
of the steps in which it kills east (`cut off`) and starts it again (`fence`).
Server: seconds that the command still waits for its temporary Prefect server once the lab is up;
with a new home, the server first makes its database. A site has a server that runs.
Work: the seconds of those of the record's steps that move data, wait for PostgreSQL, or check the
restored database (`_WORK`).
Farside and Prefect: total less lab less server less work.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.results import Result

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS, OWN_SECONDS = 90.0, 20.0
_PATIENCE = 900.0
# None: every step of the stage.
_WORK: dict[str, set[str] | None] = {
    "snapshot": {"base backup", "log to the backup's end"},
    "transfer": None,
    "restore": {"fetch and extract", "verify files", "replay", "promote"},
    "verify": None,
}


_LAB = {"declare: cut off", "teardown: fence"}


def rehearsal(rounds: int, scale: int) -> list[Result]:
    """Whole rehearsals of the lab's plan."""
    runs = [_run(scale) for _ in range(rounds)]
    return [
        _result("rehearsal", "total", LIMIT_SECONDS, runs),
        _result("rehearsal, own", "own", OWN_SECONDS, runs),
    ]


def _result(name: str, key: str, limit: float, runs: list[dict[str, Any]]) -> Result:
    ratios = sorted(limit / run[key] for run in runs)
    middle = sorted(runs, key=lambda run: float(run[key]))[len(runs) // 2]
    return Result(
        name=name,
        meaning="allowed seconds relative to those taken"
        + (" by farside and Prefect" if key == "own" else ""),
        ratio=limit / middle[key],
        lowest=ratios[0],
        highest=ratios[-1],
        farside=f"{middle[key]:.1f} s (lab {middle['lab']:.1f}, server {middle['server']:.1f},"
        f" work {middle['work']:.1f})",
        reference=f"{limit:.0f} s",
        details={"runs": runs},
    )


def _run(scale: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="farside-benchmarks-"))
    folder.chmod(0o755)  # as root the lab's services run as another account
    environment = {
        **os.environ,
        "FARSIDE_LAB": str(folder / "lab"),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    environment.pop("PREFECT_API_URL", None)
    record = folder / "record.json"
    command = [sys.executable, "-m", "tests.benchmarks.rehearsal", str(folder / "lab.json")]
    command += [f"--scale={scale}", "--json", f"--results={folder / 'results'}"]
    try:
        started = time.monotonic()
        with record.open("wb") as out, (folder / "log").open("wb") as log:
            child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=log)
            try:
                code = child.wait(_PATIENCE)
            except BaseException:
                child.send_signal(signal.SIGINT)
                child.wait()
                raise
        total = time.monotonic() - started
        if code != 0:
            raise RuntimeError(f"the rehearsal ended with {code}: {(folder / 'log').read_text()}")
        in_lab = json.loads((folder / "lab.json").read_text())
        return _parts(total, in_lab, json.loads(record.read_text()))
    finally:
        subprocess.run(
            [sys.executable, "-m", "deployments.lab", "down"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=False,
        )
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def _parts(total: float, in_lab: dict[str, float], record: dict[str, Any]) -> dict[str, Any]:
    steps = {
        f"{stage['name']}: {step['name']}": step["seconds"]
        for stage in record["stages"]
        for step in stage["steps"]
    }
    work = sum(seconds for step, seconds in steps.items() if _is_work(*step.split(": ", 1)))
    server = in_lab.pop("server")
    lab = sum(in_lab.values()) + sum(steps[name] for name in _LAB)
    return {
        "total": total,
        "lab": lab,
        "work": work,
        "server": server,
        "own": total - lab - server - work,
        "rta": record["rta_seconds"],
        "lab_parts": in_lab,
        "steps": steps,
    }


def _is_work(stage: str, step: str) -> bool:
    names = _WORK.get(stage, set())
    return names is None or step in names


def _timed(call: Callable[..., Any], seconds: dict[str, float], path: Path) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.monotonic()
        try:
            return call(*arguments, **named)
        finally:
            seconds[call.__name__] = seconds.get(call.__name__, 0.0) + time.monotonic() - started
            path.write_text(json.dumps(seconds))

    return timed


def main() -> None:
    """`python -m flows.rehearse`, with a clock around what it calls of the lab."""
    path, seconds = Path(sys.argv.pop(1)).resolve(), dict[str, float]()
    from deployments import lab

    lab.up = _timed(lab.up, seconds, path)
    lab.down = _timed(lab.down, seconds, path)
    from flows import server

    temporary_server = server.temporary_server

    @contextmanager
    def waited(note: Callable[[str], None]) -> Iterator[None]:
        with temporary_server(note):
            yield
            started = time.monotonic()
        seconds["server"] = time.monotonic() - started
        path.write_text(json.dumps(seconds))

    server.temporary_server = waited
    from flows.rehearse import __main__ as command_line

    command_line.app()


if __name__ == "__main__":
    main()
