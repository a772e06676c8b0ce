"""paramiko's transport, but for a race between the threads that share a connection.

RFC 4254, section 5.3: after CLOSE, nothing is sent on a channel. paramiko builds a message under
the channel's lock and sends it afterwards: when a short-lived command ends, the CLOSE that its own
thread sends may overtake an EOF or a window adjustment. Servers end the whole connection for that.
"""

import struct
from typing import Any

from paramiko import Channel, Transport
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_FAILURE, MSG_CHANNEL_WINDOW_ADJUST


class OrderedTransport(Transport):
    """Drops what would be sent on a channel after its CLOSE."""

    def __init__(self, *given: Any, **more: Any) -> None:
        self._ended: set[int] = set()
        """Channels, by the server's numbers, on which CLOSE was sent."""
        super().__init__(*given, **more)

    def open_session(self, *given: Any, **more: Any) -> Channel:
        """See Transport; the server may give a channel the number of one that has ended."""
        channel = super().open_session(*given, **more)
        self._ended.discard(channel.remote_chanid)
        return channel

    def _send_message(self, data: Any) -> None:
        # For channels' messages, paramiko calls this with its own lock: one after the other.
        body = data.asbytes()
        if MSG_CHANNEL_WINDOW_ADJUST <= body[0] <= MSG_CHANNEL_FAILURE:
            (number,) = struct.unpack_from(">I", body, 1)
            if number in self._ended:
                return
            if body[0] == MSG_CHANNEL_CLOSE:
                self._ended.add(number)
        super()._send_message(data)  # type: ignore[misc]  # there is no public way
