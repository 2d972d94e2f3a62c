"""How both ends find out that the other is gone, and keep what lies between them from forgetting the connection.

A NAT forgets a connection on which nothing moves, many after five minutes and some after one, and tells nobody. A ping
every 15 s keeps it, and a peer that has not answered for a minute is gone. TCP's own probes do the same for peers that
speak an older ZMTP, and while the handshake goes on.
"""

from typing import Final

import zmq

PING_MS: Final = 15_000
DEAF_MS: Final = 60_000
_PROBE_S, _PROBES = 15, 4

_OPTIONS: Final = {
    zmq.HEARTBEAT_IVL: PING_MS,
    zmq.HEARTBEAT_TIMEOUT: DEAF_MS,
    zmq.HEARTBEAT_TTL: DEAF_MS,  # the other end hangs up as well, though it may send no pings of its own
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: PING_MS // 1000,
    zmq.TCP_KEEPALIVE_INTVL: _PROBE_S,
    zmq.TCP_KEEPALIVE_CNT: _PROBES,
}


def keep_alive(socket: zmq.Socket) -> None:  # type: ignore[type-arg] # of any kind
    """Set a socket up that is not connected or bound yet."""
    for option, value in _OPTIONS.items():
        socket.setsockopt(option, value)
