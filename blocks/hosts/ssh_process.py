"""A command that runs over SSH."""

from functools import partial
from typing import TYPE_CHECKING

from blocks.hosts.process import CHUNK, ConnectionLost, Process
from blocks.limits import briefly, within

if TYPE_CHECKING:  # paramiko is imported at the first connection: this module loads with Prefect
    from paramiko import Channel


WRITE_SECONDS = 60.0
"""How long a host may take no input of what it was sent."""


class SSHProcess(Process):
    """A process at the other end of an SSH channel."""

    def __init__(self, host: str, domain: str, program: str, channel: "Channel") -> None:
        super().__init__(host, domain, program)
        self._channel = channel

    def write(self, data: bytes) -> None:
        """See Process. Raises also where the host takes nothing for WRITE_SECONDS."""
        rest = memoryview(data)
        try:
            # In slices: paramiko copies what is left each time that the window is full.
            for start in range(0, len(rest), CHUNK):
                part = bytes(rest[start : start + CHUNK])
                within(WRITE_SECONDS, partial(self._channel.sendall, part), late=TimeoutError)
        except (OSError, EOFError) as error:
            raise self._input_refused() from error

    def close_input(self) -> None:
        """See Process."""
        briefly(self._channel.shutdown_write)

    def kill(self) -> None:
        """See Process. A server without RFC 4254 signals closes the process's streams only."""
        briefly(partial(_send_signal, self._channel, "KILL"))
        self._release()

    def _read(self) -> bytes:
        return self._channel.recv(CHUNK)

    def _read_stderr(self) -> bytes:
        return self._channel.recv_stderr(CHUNK)

    def _exit_code(self, timeout: float) -> int | None:
        channel = self._channel
        if not channel.status_event.wait(timeout):
            return None
        transport = channel.get_transport()
        if channel.exit_status == -1 and not (transport and transport.is_active()):
            raise ConnectionLost(
                f"the connection broke while {self.program} was running",
                operation="run",
                domain=self.domain,
                host=self.host,
                hint="is the host up? what it was doing may go on there",
            )
        return channel.exit_status

    def _release(self) -> None:
        briefly(self._channel.close)


def _send_signal(channel: "Channel", name: str) -> None:
    from paramiko import Message
    from paramiko.common import cMSG_CHANNEL_REQUEST

    transport = channel.get_transport()
    if transport is None or channel.closed:
        return
    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    transport._send_user_message(message)  # type: ignore[attr-defined]  # no public way
