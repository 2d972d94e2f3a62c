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


def keep_alive(socket: zmq.Socket, ping_ms: int = PING_MS, deaf_ms: int = DEAF_MS) -> None:  # type: ignore[type-arg] # of any kind
    """Set a socket up that is not connected or bound yet.

    Args:
        deaf_ms: a peer that has answered no ping for so long is gone; it hangs up as well, even if it sends none.
    """
    options = {
        zmq.HEARTBEAT_IVL: ping_ms,
        zmq.HEARTBEAT_TIMEOUT: deaf_ms,
        zmq.HEARTBEAT_TTL: deaf_ms,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: PING_MS // 1000,
        zmq.TCP_KEEPALIVE_INTVL: _PROBE_S,
        zmq.TCP_KEEPALIVE_CNT: _PROBES,
    }
    for option, value in options.items():
        socket.setsockopt(option, value)
