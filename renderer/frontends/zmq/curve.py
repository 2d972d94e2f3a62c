"""CURVE keys: the daemon's pair, the public keys of its clients, and the admission of clients by their keys.

A folder in the data directory holds one file for the daemon and one for each client, by name. The daemon reads it at
each handshake, so a key is valid as soon as it is made. While messages come in it also reads it, at most ten times a
second, so a key that is removed becomes invalid even on a connection that is already open.
"""

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.asyncio
from zmq.auth import Authenticator

from protocol.curve import CurveKeys, key_of
from renderer import disk
from renderer.errors import ConfigError
from renderer.frontends.refusals import Refusals
from renderer.frontends.zmq.messages import opened

log = logging.getLogger(__name__)

USER: Final = "User-Id"  # the property of a message that holds its sender's public key
_DOMAIN: Final = "stillreel"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SUFFIX: Final = ".json"
_LOOK_S: Final = 0.1
_SETTLED_S: Final = 1.0  # a directory's time is coarse, so that two changes in a row may leave the same time
_HANDSHAKE_MS: Final = 10_000
_FAILED: Final = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILED[0] | _FAILED[1]


class CurveRing:
    """The keys in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / "curve"
        self._pair = self._directory / f"daemon{_SUFFIX}"
        self._clients = self._directory / "clients"
        self._names: dict[str, str] = {}
        self._state: tuple[int, int] | None = None
        self._looked_at = float("-inf")
        self._is_unread = False

    @property
    def is_made(self) -> bool:
        """Whether the daemon has a pair, and therefore requires keys."""
        return self._pair.exists()

    def pair(self) -> tuple[bytes, bytes]:
        """Return the daemon's public and secret key.

        Raises:
            ConfigError: they cannot be read.
        """
        try:
            found = json.loads(self._pair.read_bytes())
            return key_of(found, "public_key"), key_of(found, "secret_key")
        except OSError as error:
            raise ConfigError(f"{self._pair}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{self._pair}: expected a pair of CURVE keys") from error

    # For the command line.

    def add(self, name: str) -> CurveKeys:
        """Make a client's pair, and the daemon's if it has none; only the client's public key is kept.

        Raises:
            ConfigError: the name is taken or not allowed, or ZeroMQ was built without CURVE.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"expected a name of letters, digits, '.', '_', '@' and '-', found {name[:80]!r}")
        if not zmq.has("curve"):
            raise ConfigError("ZeroMQ was built without CURVE on this machine; the wheels of pyzmq have it")
        try:
            for directory in (self._directory.parent, self._directory, self._clients):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.is_made:
                public, secret = zmq.curve_keypair()
                _write_new(self._pair, {"public_key": public.decode(), "secret_key": secret.decode()})
            server_key, _ = self.pair()
            public, secret = zmq.curve_keypair()
            made_at = datetime.now(UTC).isoformat(timespec="seconds")
            if not _write_new(self._file_of(name), {"public_key": public.decode(), "made_at": made_at}):
                raise ConfigError(f"there is a CURVE key named {name} already; remove it first")
        except OSError as error:
            raise ConfigError(f"{self._directory}: {error.strerror}") from error
        return CurveKeys(server_key, public, secret)

    def remove(self, name: str) -> None:
        """Remove a key, which becomes invalid at once.

        Raises:
            ConfigError: there is no key of this name.
        """
        try:
            self._file_of(name if _NAME.fullmatch(name) else "").unlink()
        except FileNotFoundError as error:
            raise ConfigError(f"there is no CURVE key named {name[:80]!r}") from error
        except OSError as error:
            raise ConfigError(f"{self._directory}: {error.strerror}") from error

    def listed(self) -> list[tuple[str, str]]:
        """Return the clients' names, and when the key of each was made."""
        return [(name, str(document.get("made_at", ""))) for name, document in sorted(self._documents())]

    # For the daemon.

    def name_of(self, public_key: str, *, is_new: bool = False) -> str | None:
        """Return the name of the client that has this key, or None.

        Args:
            is_new: read the folder now, for a client that has just connected.
        """
        now = time.monotonic()
        if is_new or now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._refresh()
        return self._names.get(public_key)

    def _refresh(self) -> None:
        try:
            found = self._clients.stat()
            state = (found.st_mtime_ns, found.st_ino)
            if state != self._state or abs(time.time() - found.st_mtime) < _SETTLED_S:
                self._names = {str(document["public_key"]): name for name, document in self._documents()}
            self._state, self._is_unread = state, False
        except FileNotFoundError:
            self._names, self._state = {}, None
        except OSError as error:
            if not self._is_unread:
                log.warning(
                    "the CURVE keys could not be read and stay as they were: %s",
                    error.strerror,
                    extra={"action": "keys_unread"},
                )
            self._is_unread = True

    def _documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the file's content of each client."""
        for file in self._clients.glob(f"*{_SUFFIX}"):
            try:
                found = json.loads(file.read_bytes())
                key_of(found, "public_key")
            except FileNotFoundError:  # removed in the meantime
                continue
            except (OSError, ValueError):
                words = "the CURVE key %r cannot be read and is ignored"
                log.warning(words, file.stem, extra={"action": "keys_unread"})
                continue
            yield file.stem, found

    def _file_of(self, name: str) -> Path:
        return self._clients / f"{name}{_SUFFIX}"


class Admission(Authenticator):
    """Decides at each handshake whether a client is admitted (ZAP, https://rfc.zeromq.org/spec/27/); on the loop.

    pyzmq's own authenticator for asyncio hides its task, so that nobody would notice if it ended.
    """

    def __init__(self, context: zmq.asyncio.Context, ring: CurveRing, refusals: Refusals) -> None:
        super().__init__(context)
        self._ring = ring
        self._refusals = refusals
        self._address = ""
        self.configure_curve_callback(_DOMAIN, self)

    async def serve(self) -> None:
        """Answer until cancelled; `start` has been called."""
        poller = zmq.asyncio.Poller()
        poller.register(self.zap_socket, zmq.POLLIN)
        while True:
            await poller.poll()
            await self.handle_zap_message(self.zap_socket.recv_multipart())

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        self._address = msg[3].decode("ascii", "replace") if len(msg) > 3 else ""
        await super().handle_zap_message(msg)

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - the authenticator names both
        """Return whether a key is known; this must not raise, because that would end the task of `serve`."""
        is_known = self._ring.name_of(key.decode("ascii"), is_new=True) is not None
        if not is_known:
            self._refusals.note(self._address, "its CURVE key is not known here")
        return is_known


class Handshakes:
    """Records clients without a key, or with the key of another daemon, which ZeroMQ refuses without asking.

    ZeroMQ reports a failed handshake without the peer, and right after it the end of that connection.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._peers: dict[int, str] = {}
        self._has_failed = False

    def on_event(self, kind: int, descriptor: int) -> None:
        """Record ZeroMQ's report of a connection."""
        if kind == zmq.EVENT_ACCEPTED:
            self._peers[descriptor] = _address_of(descriptor)
        elif kind == zmq.EVENT_DISCONNECTED:
            peer = self._peers.pop(descriptor, "")
            if self._has_failed:
                self._refusals.note(peer, "it has no CURVE key for this daemon")
        self._has_failed = kind in _FAILED


def _address_of(descriptor: int) -> str:
    """Return the peer's address of one of ZeroMQ's connections; empty if the connection has ended already."""
    with opened(descriptor) as peer, contextlib.suppress(OSError):
        return str(peer.getpeername()[0]) if peer else ""
    return ""


def ask_for_keys(door: zmq.asyncio.Socket, ring: CurveRing) -> None:
    """Make a socket that is not bound yet accept only clients with keys.

    If no authenticator answers for its domain, ZeroMQ would accept every key, unless the domain is enforced.

    Raises:
        ConfigError: the daemon's pair cannot be read.
    """
    public, secret = ring.pair()
    door.setsockopt(zmq.CURVE_SERVER, 1)
    door.setsockopt(zmq.CURVE_PUBLICKEY, public)
    door.setsockopt(zmq.CURVE_SECRETKEY, secret)
    door.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
    door.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    door.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)


def _write_new(file: Path, document: dict[str, Any]) -> bool:
    """Write a complete file unless it exists already; return whether it was written."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    disk.put(part, (json.dumps(document) + "\n").encode())
    try:
        os.link(part, file)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    disk.sync(file.parent)
    return True
