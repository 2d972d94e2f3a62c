"""How both ends notice that the other is gone, and keep the routers between them from dropping the connection.

A NAT silently drops an idle connection, many after five minutes and some after one. A ping every 15 s prevents that,
and a peer that has not answered for a minute is taken to be gone. TCP's own probes do the same during the handshake,
and for peers that speak an older ZMTP.
"""

from typing import Final

import zmq

PING_MS: Final = 15_000
DEAF_MS: Final = 60_000
_PROBE_S, _PROBES = 15, 4


def keep_alive(socket: zmq.Socket, ping_ms: int = PING_MS, deaf_ms: int = DEAF_MS) -> None:  # type: ignore[type-arg] # of any kind
    """Configure a socket that is not connected or bound yet.

    Args:
        deaf_ms: how long a peer may leave pings unanswered before it is disconnected; it is told to do the same to us.
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
