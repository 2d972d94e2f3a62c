"""From a url to bytes: paths and `file:` under allowed directories, `data:`, `cid:`, http(s), and objects in buckets.

A path is judged twice. `check` compares words: it must lie under an allowed directory and may not climb with `..`.
`fetch` opens the file, then asks the system what it has really opened, and compares that: a symbolic link, or a
directory exchanged in between, cannot lead out. It opens without blocking and reads regular files only, so that a FIFO
or a device costs nothing.

http reaches public addresses only, unless the settings name a network; see `net.addresses`. Objects are read below the
prefixes that the settings name. Messages hold no path; the place in the request shows which url is meant.

`data:` urls are those of RFC 2397: [media type][;base64],data. The media type is ignored; the bytes show the format.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import unquote_to_bytes

from protocol.objects import SCHEMES, ObjectUrl, is_among, is_object, parse_object
from protocol.schema import PixelLayout
from renderer.config import FetchSettings
from renderer.errors import FetchFailed, FileTooLarge, NotSupported
from renderer.net.addresses import Guard
from renderer.work import Attachment

if TYPE_CHECKING:
    from renderer.net.objects import Access

_FORGIVEN: Final = b" \t\n\f\r"  # https://infra.spec.whatwg.org/#forgiving-base64-decode
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)  # RFC 3986, 3.1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RawPixels:
    """An attachment of raw pixels, as long as its layout says; `decode.opened` makes a picture of it."""

    data: bytes
    layout: PixelLayout


Content = bytes | RawPixels
Kind = Literal["image", "audio", "video"]
_KINDS: Final[Mapping[str, Kind]] = {
    "images": "image", "audio": "audio", "audio_url": "audio", "video_url": "video", "media_url": "video",
}  # fmt: skip


class Fetcher:
    """Reads the sources of one job; safe to use from many threads."""

    def __init__(
        self,
        settings: FetchSettings,
        *,
        base: Path | None = None,
        attachments: Sequence[Attachment] = (),
        any_path: bool = False,
    ) -> None:
        """Store what may be read.

        Args:
            base: the manifest's directory: relative paths start there, and all below it may be read. Without one they
                are tried under each allowed root.
            attachments: what `cid:0`, `cid:1` and so on name.
            any_path: every file and object may be read that this process can read, as on the command line, for its own
                user.
        """
        self._settings = settings
        self._kind: Kind = "image"
        self._attachments = tuple(attachments)
        self._any_path = any_path
        starts = (base,) if base is not None else settings.allow_roots
        self._starts = starts if starts or not any_path else (Path(),)
        # As they are written, and as the system will name what was opened.
        self._roots = tuple(
            spelling
            for root in (*settings.allow_roots, *((base,) if base is not None else ()))
            for spelling in (Path(os.path.abspath(root)), Path(os.path.realpath(root)))  # noqa: PTH100 - keeps links
        )

    def of(self, field: str) -> Self:
        """Return one for the same sources, with the limit on the bytes of what this field of a request names."""
        found = copy(self)
        found._kind = _KINDS[field]  # noqa: SLF001 - of a twin
        return found

    @property
    def _checks(self) -> dict[str, Callable[[str], object]]:
        return {
            "": self._candidates,
            "file": lambda rest: self._candidates(_path_of(rest)),
            "data": self._check_data,
            "cid": self._attachment,
            "http": self._check_http,
            "https": self._check_http,
            **dict.fromkeys(SCHEMES, self._check_object),
        }

    def check(self, url: str) -> None:
        """Refuse a url whose fault shows in the url itself; reads nothing.

        Raises:
            FetchFailed, FileTooLarge, NotSupported: as `fetch` would.
        """
        scheme, rest = self._split(url)
        self._checks[scheme](rest)

    def fetch(self, url: str) -> Content:
        """Read the source.

        Returns:
            A file's bytes; for an attachment of raw pixels those, with their layout.

        Raises:
            FetchFailed: it does not exist, must not be read, or could not be read.
            FileTooLarge: it has more bytes than the settings allow for its kind.
            NotSupported: nothing here reads such urls.
        """
        scheme, rest = self._split(url)
        if scheme in ("", "file"):
            return self._read_file(self._first_existing(rest if scheme == "" else _path_of(rest)))
        if scheme == "data":
            return self._read_data(rest)
        if scheme == "cid":
            return self._read_attachment(self._attachment(rest))
        if scheme in SCHEMES:
            from renderer.net.objects import read  # noqa: PLC0415 - as below

            return read(self._check_object(rest), self._max_bytes, self._access(), self._kind)
        self._check_http(rest)
        from renderer.net.client import Client  # noqa: PLC0415 - asyncio and the like, which few jobs need
        from renderer.net.download import Bounds, download  # noqa: PLC0415 - as above
        from renderer.net.url import proxy_for  # noqa: PLC0415 - as above

        settings = self._settings
        bounds = Bounds(
            self._max_bytes,
            settings.download_timeout_s,
            settings.max_redirects,
            settings.download_attempts,
            self._kind,
        )
        headers = {
            host: {name: value.get_secret_value() for name, value in of_host.items()}
            for host, of_host in settings.headers.items()
        }
        client = Client(Guard(settings.allow_networks), proxy_for(url, settings.proxy), settings.ca_file, headers)
        return download(url, bounds, client)

    @contextmanager
    def open_local(self, url: str) -> Iterator[int | None]:
        """Open the file that a path, a `file:` url or an attachment names, under `fetch`'s rules; None for others.

        Raises:
            FetchFailed, FileTooLarge, NotSupported: as `fetch` would.
        """
        scheme, rest = self._split(url)
        path: str | None = None
        if scheme == "cid":
            path = str(self._attachment(rest).path)
        elif scheme in ("", "file"):
            path = self._first_existing(rest if scheme == "" else _path_of(rest))
        if path is None:
            yield None
            return
        handle = self._open(path, is_ours=scheme == "cid")
        try:
            yield handle
        finally:
            os.close(handle)

    def _split(self, url: str) -> tuple[str, str]:
        """Return the scheme, empty for a path, and what follows it: for http the whole url."""
        match = _SCHEME.match(url)
        if match is None:
            return "", url
        scheme = match[1].lower()
        if scheme not in self._checks:
            raise NotSupported(
                f"expected a path or a url of the schemes {', '.join(filter(None, self._checks))}, "
                f"found {scheme[:32]}: (a path with a colon can be written ./name)"
            )
        return scheme, url if scheme.startswith("http") or scheme in SCHEMES else match[2]

    # Paths.

    def _candidates(self, path: str) -> list[str]:
        """Return where the file may be, in the order to try."""
        if not path or "\0" in path:
            raise FetchFailed("expected a path, found an empty one or one with a NUL")
        if self._any_path:
            return [os.path.join(start, path) for start in self._starts]  # noqa: PTH118 - Path would drop a last dot
        if ".." in path.split("/"):
            raise FetchFailed("expected a path without '..'")
        found = [os.path.join(start, path) for start in self._starts] if not path.startswith("/") else [path]  # noqa: PTH118
        found = [candidate for candidate in found if self._is_allowed(os.path.abspath(candidate))]  # noqa: PTH100
        if not found:
            raise FetchFailed("not under a directory that may be read (--allow-root)")
        return found

    def _is_allowed(self, path: str) -> bool:
        return any(Path(path).is_relative_to(root) for root in self._roots)

    def _first_existing(self, path: str) -> str:
        candidates = self._candidates(path)
        return next(filter(os.path.exists, candidates[:-1]), candidates[-1])

    def _read_file(self, path: str) -> bytes:
        handle = self._open(path)
        try:
            return self._read_all(partial(os.read, handle))
        except OSError as error:
            raise FetchFailed(_words(error)) from error
        finally:
            os.close(handle)

    def _open(self, path: str, *, is_ours: bool = False) -> int:
        try:
            # O_NONBLOCK: opening a FIFO would wait for its writer. O_NOCTTY: a terminal must not become ours.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            raise FetchFailed(_words(error)) from error
        try:
            if not is_ours:
                self._check_opened(handle, path)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _check_opened(self, handle: int, path: str) -> None:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise FetchFailed("expected a regular file")
        if not self._any_path and not self._is_allowed(_opened_path(handle, path)):
            raise FetchFailed("not under a directory that may be read (--allow-root)")
        self._check_size(state.st_size)

    def _read_all(self, read: Callable[[int], bytes | None]) -> bytes:
        """Read to the end, or until there is too much: the file may grow while it is read."""
        chunks: list[bytes] = []
        size_bytes = 0
        while chunk := read(_CHUNK_BYTES):
            chunks.append(chunk)
            size_bytes += len(chunk)
            self._check_size(size_bytes)
        return b"".join(chunks)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            words = f"expected at most {self._max_bytes} bytes, found {size_bytes} or more"
            raise FileTooLarge(f"{words} (fetch.max_{self._kind}_bytes)")

    @property
    def _max_bytes(self) -> int:
        return int(getattr(self._settings, f"max_{self._kind}_bytes"))

    # data: urls.

    def _check_data(self, rest: str) -> tuple[bool, str]:
        """Return whether it is base64, and the payload: base64 makes four of three bytes, percent-encoding triples."""
        head, comma, payload = rest.partition(",")
        if not comma:
            raise FetchFailed("expected a comma in the data: url")
        self._check_size(len(payload) // 4)
        return head[-7:].lower() == ";base64", payload

    def _read_data(self, rest: str) -> bytes:
        is_base64, payload = self._check_data(rest)
        found = unquote_to_bytes(payload)
        if is_base64:
            digits = found.translate(None, _FORGIVEN).rstrip(b"=")
            try:
                found = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
            except binascii.Error as error:
                raise FetchFailed("expected base64 in the data: url") from error
        self._check_size(len(found))
        return found

    # Attachments.

    def _attachment(self, number: str) -> Attachment:
        if not (number.isascii() and number.isdecimal() and len(number) <= 9):
            raise FetchFailed("expected cid: and the number of an attachment, such as cid:0")
        if int(number) >= len(self._attachments):
            raise FetchFailed(
                f"expected one of {len(self._attachments)} attachments, counted from 0, found cid:{number}"
            )
        return self._attachments[int(number)]

    def _read_attachment(self, attachment: Attachment) -> Content:
        try:
            with attachment.path.open("rb") as file:
                if attachment.layout is None:
                    self._check_size(os.fstat(file.fileno()).st_size)
                    return self._read_all(file.read)
                # The message's own limit has bounded it; the one on image files is about encoded bytes.
                return _raw(file.read(attachment.layout.size_bytes + 1), attachment.layout)
        except OSError as error:
            raise FetchFailed("the attachment could not be read") from error

    # http and https.

    def _check_http(self, url: str) -> None:
        if not self._settings.allow_http:
            raise FetchFailed("http and https are switched off here (fetch.allow_http)")
        from renderer.net.url import parse_http  # noqa: PLC0415 - as above

        parse_http(url)

    # Objects in buckets.

    def version(self, url: str) -> str | None:
        """Return a value that changes whenever an object's content does; None if the url does not name an object.

        Raises:
            FetchFailed, NotSupported: as `fetch` would.
        """
        scheme, rest = self._split(url)
        if scheme not in SCHEMES:
            return None
        from renderer.net.objects import find  # noqa: PLC0415 - as above

        found = find(self._check_object(rest), self._access())
        if found is None:
            raise FetchFailed("there is no such object")
        return found.version

    def _check_object(self, url: str) -> ObjectUrl:
        from renderer.net.objects import missing_extra  # noqa: PLC0415 - as above

        if missing := missing_extra():
            raise NotSupported(missing)
        try:
            found = parse_object(url)
        except ValueError as error:
            raise FetchFailed(str(error)) from error
        if not (self._any_path or is_among(found, self._settings.allow_objects)):
            raise FetchFailed("not in a bucket that may be read (fetch.allow_objects)")
        return found

    def _access(self) -> "Access":
        from renderer.net.objects import access_for  # noqa: PLC0415 - as above

        return access_for(self._settings)


def is_download(url: str) -> bool:
    return url[:8].lower().startswith(("http:", "https:")) or is_object(url)


def _path_of(rest: str) -> str:
    """Return the path of a `file:` url (RFC 8089), given what follows the colon."""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise FetchFailed("expected a file: url without a host")
        rest = slash + path
    return os.fsdecode(unquote_to_bytes(rest))


def _opened_path(handle: int, path: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - a string all the way
    except OSError:  # no /proc: not Linux
        return os.path.realpath(path)


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file"
    return "the file may not be read" if isinstance(error, PermissionError) else "the file could not be read"


def _raw(data: bytes, layout: PixelLayout) -> RawPixels:
    if len(data) != layout.size_bytes:
        raise FetchFailed(
            f"expected {layout.size_bytes} bytes for shape {list(layout.shape)} of {layout.dtype}, "
            f"found {'more' if len(data) > layout.size_bytes else len(data)}"
        )
    return RawPixels(data, layout)
