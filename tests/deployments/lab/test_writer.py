"""The writer's loop: what its ledger says was acknowledged, whatever breaks."""

import subprocess
import sys
import time
from pathlib import Path

from deployments.lab import writer

CLIENT = """
import os
from pathlib import Path

LOST = (ConnectionError,)
FOLDER = Path(__file__).parent


class Client:
    def __init__(self, attempt, database):
        self.attempt, self.file = attempt, Path(database)

    def committed(self, last):
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0

    def write(self, number):
        if self.attempt == 1:
            raise ConnectionError("it was not reached")
        with self.file.open("a") as file:
            file.write(f"{number}\\n")
        if self.attempt == 0 and number == 3:
            raise ConnectionError("it was committed, and the answer was lost")

    def load(self, number):
        (FOLDER / "load").write_text(str(number))

    def close(self):
        (FOLDER / f"closed{self.attempt}").touch()


def connect(attempt, database):
    return Client(attempt, database)
"""


def test_no_beat_is_left_out_or_noted_twice(tmp_path: Path) -> None:
    client, database, ledger = (tmp_path / name for name in ("client.py", "database", "ledger"))
    client.write_text(CLIENT)
    argv = [sys.executable, "-P", writer.__file__, str(client), str(database), str(ledger)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 60
    try:
        while writer.last_number(ledger) < 6:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        process.kill()
        _, said = process.communicate()
    noted = [int(line.split("\t")[0]) for line in ledger.read_text().splitlines()]
    assert noted == list(range(1, len(noted) + 1))
    assert len(database.read_text().splitlines()) - len(noted) in (0, 1)
    assert [line.split(" ", 1)[1] for line in said.splitlines()] == [
        "it was committed, and the answer was lost",
        "it was not reached",
    ]
    assert (tmp_path / "closed0").exists()
    assert (tmp_path / "closed1").exists()
    assert int((tmp_path / "load").read_text()) >= 5


def test_it_goes_on_where_its_ledger_ends(tmp_path: Path) -> None:
    assert writer.last_number(tmp_path / "ledger") == 0
    (tmp_path / "ledger").write_text("1\tthen\n2\tthen\n")
    assert writer.last_number(tmp_path / "ledger") == 2
