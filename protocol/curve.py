"""The file that a client needs if a daemon asks for keys: the daemon's public key and the client's own pair of keys.

`stillreel keys curve NAME` writes it. CURVE (https://rfc.zeromq.org/spec/26/) authenticates both ends and encrypts the
connection; keys are written in Z85, 40 characters for 32 bytes.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from protocol.errors import BadCurveFile


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The keys that a client connects with."""

    server_key: bytes
    public_key: bytes
    secret_key: bytes = field(repr=False)

    def to_text(self) -> str:
        """Return the content of the client's file."""
        names = ("server_key", "public_key", "secret_key")
        return json.dumps({name: getattr(self, name).decode("ascii") for name in names}, indent=2) + "\n"

    def give_to(self, socket: zmq.Socket) -> None:  # type: ignore[type-arg] # of any kind
        """Set the keys on a socket that is not connected yet."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_key)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public_key)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret_key)


def read_curve_file(file: str | Path) -> CurveKeys:
    """Read a file that `stillreel keys curve` has written.

    Raises:
        BadCurveFile: it cannot be read, or is not such a file; the message quotes nothing of it.
    """
    try:
        found = json.loads(Path(file).read_bytes())
        keys = CurveKeys(*(key_of(found, name) for name in ("server_key", "public_key", "secret_key")))
    except OSError as error:
        raise BadCurveFile(f"the CURVE file {str(file)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        words = f"{str(file)!r} is not a file that `stillreel keys curve` has written"
        raise BadCurveFile(words) from error
    if not zmq.has("curve"):
        raise BadCurveFile("ZeroMQ was built without CURVE on this machine; the wheels of pyzmq have it")
    return keys


def key_of(document: object, name: str) -> bytes:
    """Return the key that a document holds under a name.

    Raises:
        ValueError: it holds no key under this name.
    """
    text = document.get(name) if isinstance(document, dict) else None
    try:
        if isinstance(text, str) and len(text) == 40 and len(z85.decode(text)) == 32:
            return text.encode("ascii")
    except (ValueError, KeyError, OverflowError):
        pass
    raise ValueError(f"{name}: expected 40 characters of Z85") from None
