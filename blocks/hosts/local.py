"""The machine that farside runs on, as a host."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from blocks.block import Address
from blocks.hosts.host import PLAIN, Host, draft_name
from blocks.hosts.local_process import LocalProcess
from blocks.hosts.process import CommandNotStarted, Process


class LocalHost(Host):
    """The machine that farside itself runs on."""

    _block_type_name: ClassVar[str | None] = "farside local host"
    _block_type_slug: ClassVar[str | None] = "farside-local-host"
    _description: ClassVar[str | None] = "The machine that farside itself runs on."

    kind: Literal["local"] = Field(
        default="local", description="local: commands run on the machine that farside runs on."
    )
    name: str = Field(
        default="local",
        description="What plan, records and messages call this host. Default: local.",
        min_length=1,
    )
    address: Address = Field(
        default="127.0.0.1",
        description="IP address or DNS name by which it is known. Default: 127.0.0.1.",
        min_length=1,
    )

    def _start(self, argv: Sequence[str]) -> Process:
        try:
            popen = subprocess.Popen(
                # Through a shell like SSH's, so that a missing program ends with 127 here as well.
                ["/bin/sh", "-c", 'exec "$@"', "sh", *argv],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=os.environ | PLAIN,
            )
        except OSError as error:
            raise CommandNotStarted(
                f"{argv[0]}: {error.strerror or error}",
                operation="run",
                domain=self.domain,
                host=self.name,
            ) from error
        return LocalProcess(self.name, self.domain, argv[0], popen).begin()

    def _put(self, data: bytes, path: str, mode: int) -> None:
        """See Host."""
        target = Path(path)
        draft = target.with_name(draft_name(target.name))
        try:
            try:
                draft.touch(0o600, exist_ok=False)
                with draft.open("wb") as file:
                    os.fchmod(file.fileno(), mode)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise self._file_error(error, path, "put") from error

    def _get(self, path: str, most: int) -> bytes:
        """See Host."""
        try:
            with Path(path).open("rb") as file:
                return file.read(most + 1)
        except OSError as error:
            raise self._file_error(error, path, "get") from error

    def close(self) -> None:
        """See Host; there is nothing to close."""
