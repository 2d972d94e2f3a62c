"""API keys: made once, shown once, kept as hashes.

A key is 256 random bits, so one round of SHA-256 is enough: a slow hash protects passwords that people choose, but
nobody can guess these. The file is read again when it changes, so a key is valid or invalid without a restart.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from renderer import disk
from renderer.errors import ConfigError

log = logging.getLogger(__name__)

FILE_NAME = "keys.json"
CERT_NAME, KEY_NAME = "tls-cert.pem", "tls-key.pem"  # made by `stillreel keys --tls`
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PREFIX = "sr_"  # scanners for leaked secrets recognise it
_SECRET_BYTES = 32
_SHORTEST = 32  # of a key made elsewhere: its hash is quick, so it must be hard to guess


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept; its holder is called `name`."""

    name: str
    sha256: str
    made_at: str


class KeyRing:
    """The keys in a data directory, and one in a file elsewhere."""

    def __init__(self, data_dir: Path, key_file: Path | None = None) -> None:
        """Read the keys.

        Args:
            key_file: holds one key in plain text, made by its holder; read only now.

        Raises:
            ConfigError: a file cannot be read, or the key is too short.
        """
        self._given = (_given(key_file),) if key_file else ()
        self._file = data_dir / FILE_NAME
        self._state: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()
        self._state, self._keys = self._stat(), self._read() + self._given

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys as they are now; if the file cannot be read any more, the last ones that could."""
        state = self._stat()
        if state != self._state:
            self._state = state
            try:
                self._keys = self._read() + self._given
            except ConfigError as error:
                log.warning(
                    "the API keys could not be read and stay as they were: %s", error, extra={"action": "keys_unread"}
                )
        return self._keys

    def listed(self) -> list[tuple[str, str]]:
        """Return the names of the keys, and when each was made."""
        return [(key.name, key.made_at) for key in self.keys]

    def name_of(self, secret: str) -> str | None:
        """Return the name of a key, or None; this takes as long for a wrong key as for a right one."""
        given = _hash(secret)
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, given):
                found = key.name
        return found

    def add(self, name: str) -> str:
        """Make a key and return it; it cannot be shown again.

        Raises:
            ConfigError: the name is taken or not allowed.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"expected a name of letters, digits, '.', '_', '@' and '-', found {name[:80]!r}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        with self._locked() as keys:
            if any(key.name == name for key in keys):
                raise ConfigError(f"there is a key named {name} already; remove it first")
            self._write([*keys, Key(name, _hash(secret), datetime.now(UTC).isoformat(timespec="seconds"))])
        return secret

    def remove(self, name: str) -> None:
        """Remove a key, which becomes invalid at once.

        Raises:
            ConfigError: there is no key of this name.
        """
        with self._locked() as keys:
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                raise ConfigError(f"there is no key named {name[:80]!r}")
            self._write(left)

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[Key, ...]:
        try:
            fields: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            return tuple(Key(**each) for each in fields["keys"])
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(f"{self._file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._file}: expected API keys as `stillreel keys add` writes them") from error

    def _write(self, keys: list[Key]) -> None:
        write_private(self._file, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2).encode())
        self._state, self._keys = self._stat(), (*keys, *self._given)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[Key, ...]]:
        """Lend the keys, and keep other commands from writing in the meantime."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._file.parent, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(f"server.data_dir: {self._file.parent}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self._read()
        finally:
            os.close(handle)


def _given(file: Path) -> Key:
    try:
        secret = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"http.key_file: {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"http.key_file: {file}: expected a key in ASCII") from error
    if len(secret) < _SHORTEST or len(secret.split()) != 1:
        raise ConfigError(f"http.key_file: {file}: expected one word of {_SHORTEST} random characters or more")
    return Key("key_file", _hash(secret), "")


def write_private(file: Path, content: bytes) -> None:
    """Write a file of the data directory.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        disk.put(file, content)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def secret_bytes(file: Path) -> bytes:
    """Return the secret in a file, which is made if it does not exist.

    Raises:
        ConfigError: it cannot be read or made.
    """
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        found = secrets.token_bytes(_SECRET_BYTES)
        write_private(file, found)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    if len(found) != _SECRET_BYTES:
        raise ConfigError(f"{file}: expected {_SECRET_BYTES} bytes, found {len(found)}")
    return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
