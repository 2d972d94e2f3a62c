"""Files that clients upload before a request, each in a directory whose name cannot be guessed.

    uploads/TOKEN/content       the bytes
    uploads/TOKEN/about.json    type, name and time of expiry
    uploads/.coming-.../        a file that is not complete yet
    uploads/.going-.../         a file that is being removed

A file appears together with its directory, by one rename, and never changes after that: links to it may be cached, and
a rename onto a directory that contains files fails. A request that names an upload gets it as an attachment, through a
second link to the file and whatever the host in the url is: nothing is fetched over the network, and the job keeps its
picture when the upload expires.

The official clients upload to routes of their own: the JavaScript client in two steps, the Python client with a token.
Both send large files in parts, but only above the size that an image may have by default, so uploads in parts are
refused with an explanation.
"""

import asyncio
import contextlib
import errno
import filecmp
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from protocol.documents import read_document
from protocol.media import AnyRequest
from renderer import disk
from renderer.config import RetentionSettings
from renderer.disk import is_full, open_private, sync
from renderer.errors import FetchFailed, StorageFull, StoreFailed
from renderer.frontends.http import schema
from renderer.frontends.http.links import Links, Tokens, caller_of, is_upload
from renderer.frontends.http.reading import Bodies, chunks
from renderer.frontends.http.responses import error
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import BYTES, REFUSALS, Described, body_of
from renderer.observe.descriptors import repeatedly

log = logging.getLogger(__name__)

_SWEEP_S: Final = 60.0
_BLOCK_BYTES: Final = 1 << 20
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}/[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known about an uploaded file."""

    content_type: str
    file_name: str
    ends_at: float
    size_bytes: int


class AlreadyThere(Exception):
    """Another file was uploaded to this place before, and files do not change."""


class Uploads:
    """The directory of uploads; on one loop."""

    def __init__(self, directory: Path, settings: RetentionSettings) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self._directory = directory
        self._settings = settings
        self._in_use: Counter[str] = Counter()
        self._arriving: set[str] = set()
        self._size_bytes = 0
        self._sizes: dict[str, int] = {}  # by directory, including files that are arriving or being removed
        for path in directory.iterdir():
            if about := self.about(path.name):
                self._note_size(path.name, about.size_bytes)

    def path(self, token: str) -> Path:
        return self._directory / token / "content"

    def about(self, token: str) -> Upload | None:
        """Return what is known about an upload; None if there is none or it has expired."""
        try:
            return self._read(token)
        except OSError:
            return None

    def _read(self, token: str) -> Upload | None:
        """Do the same as `about`, but raise OSError if the file cannot be read."""
        if not is_upload(token):
            return None
        try:
            fields = json.loads((self._directory / token / "about.json").read_bytes())
            found = Upload(**fields)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None
        return found if found.ends_at > time.time() else None

    # Coming in.

    async def write(self, token: str, upload: Upload, content: AsyncIterator[bytes]) -> None:
        """Store a file, which appears once it is complete and on disk. Uploading the same file again changes nothing.

        Args:
            upload: what the client says about it; its size is counted, and its lifetime begins when it is complete.

        Raises:
            AlreadyThere: another file has this token.
            StorageFull, StoreFailed: it cannot be written. Exceptions of `content` are passed on.
        """
        coming = self._directory / f".coming-{secrets.token_hex(8)}"
        self._arriving.add(coming.name)
        began = time.monotonic()
        try:
            size_bytes = await self._receive(coming, content)
            ends_at = upload.ends_at + time.monotonic() - began
            about = json.dumps(asdict(replace(upload, ends_at=ends_at, size_bytes=size_bytes))).encode()
            await asyncio.to_thread(disk.put, coming / "about.json", about)  # syncs the directory's names as well
            await self._settle(coming, token)
        except OSError as error:
            if is_full(error.errno):
                raise StorageFull("the disk is full, so the file could not be kept; try again later") from error
            raise StoreFailed("the file could not be kept") from error
        finally:
            self._arriving.discard(coming.name)
            shutil.rmtree(coming, ignore_errors=True)
            self._note_size(coming.name, 0)

    async def _receive(self, coming: Path, content: AsyncIterator[bytes]) -> int:
        """Write the content to a file while there is room, and return its size."""
        await asyncio.to_thread(coming.mkdir, mode=0o700)
        size_bytes = 0
        with open(coming / "content", "xb", opener=open_private) as file:  # noqa: ASYNC230 - Path.open has no opener
            async for block in _blocks(content):
                size_bytes += len(block)
                self._note_size(coming.name, size_bytes)
                if self._size_bytes > self._settings.uploads_bytes:
                    raise StorageFull("there is no room for more uploads; try again later")
                await asyncio.to_thread(file.write, block)
            await asyncio.to_thread(_flush, file)
        return size_bytes

    async def _settle(self, coming: Path, token: str) -> None:
        """Give a complete file its name, unless another file has it."""
        place = self._directory / token
        if place.exists() and self._read(token) is None:
            await self._remove(token)
        try:
            self._rename(coming.name, token)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            if not await asyncio.to_thread(filecmp.cmp, coming / "content", place / "content", shallow=False):
                raise AlreadyThere from None
        await asyncio.to_thread(sync, self._directory)

    def _rename(self, name: str, new_name: str) -> None:
        (self._directory / name).rename(self._directory / new_name)
        size_bytes = self._sizes.get(name, 0)
        self._note_size(name, 0)
        self._note_size(new_name, size_bytes)

    def _note_size(self, name: str, size_bytes: int) -> None:
        self._size_bytes += size_bytes - self._sizes.pop(name, 0)
        if size_bytes:
            self._sizes[name] = size_bytes

    def wanted(self, content_type: str | None, file_name: str | None, life_s: float | None) -> Upload:
        """Return what a client says about a file, after checking it."""
        kind = (content_type or "").partition(";")[0].strip()
        ends_at = time.time() + min(self._settings.uploads_s, life_s or self._settings.uploads_s)
        return Upload(kind if _TYPE.fullmatch(kind) else "application/octet-stream", safe_name(file_name), ends_at, 0)

    # Being used.

    @contextlib.contextmanager
    def taken(
        self, request: AnyRequest, links: Links, made: Callable[[str], Path | None]
    ) -> Iterator[tuple[AnyRequest, list[Path]]]:
        """Lend the request and the files that this door has for it, their urls replaced by those of attachments.

        Args:
            made: returns the file of an earlier job's result that a token stands for.

        Raises:
            FetchFailed: a url names a file that this door does not have any more.
        """
        files: dict[str, Path] = {}
        names: dict[str, str] = {}
        for loc, url in request.urls():
            token = self._token(url)
            if token is None:
                continue
            file = files.get(token) or (self.path(token) if self.about(token) else made(token))
            if file is None and urlsplit(url).netloc == urlsplit(links.base).netloc:
                raise FetchFailed("no such file, or it has expired").at(*loc)
            if file is not None:
                files[token] = file
                names[url] = f"cid:{list(files).index(token)}"
        self._in_use.update(list(files))
        try:
            yield request.renamed(names), list(files.values())
        finally:
            self._in_use.subtract(list(files))
            self._in_use += Counter()  # drops the counts of zero

    def _token(self, url: str) -> str | None:
        """Return the token of a url that may name a file of this door; None for a url that must be fetched."""
        if "/files/" not in url[:512]:
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        *_, before, token, _ = ["", "", *parts.path.split("/")]
        return token if before == "files" and parts.scheme in {"", "http", "https"} else None

    # Going.

    async def run(self) -> None:
        """Remove expired uploads once a minute until cancelled; what fails is tried again."""
        await repeatedly("sweeping the uploads", self.sweep, _SWEEP_S)

    async def sweep(self) -> None:
        """Remove expired uploads, and the remains of a daemon that was killed.

        Raises:
            OSError: the directory cannot be read.
        """
        for name in await asyncio.to_thread(lambda: [path.name for path in self._directory.iterdir()]):
            if name not in self._arriving and self._read(name) is None:
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        """Remove an upload, unless a request is being given it; the rename makes it disappear at once."""
        if self._in_use[name] > 0:
            return
        going = self._directory / f".going-{secrets.token_hex(8)}"
        self._rename(name, going.name)
        await asyncio.to_thread(shutil.rmtree, going, ignore_errors=True)
        if not going.exists():
            log.info("an upload of %d bytes was removed", self._sizes.get(going.name, 0), extra={"action": "retention"})
            self._note_size(going.name, 0)


def safe_name(name: str | None) -> str:
    """Return the last part of a name, without characters that could do harm in a path, a header or a page."""
    last = re.split(r"[/\\]", name or "")[-1]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '"<>|:*?%#').strip(" .")
    return kept[-120:] or "file"


async def _blocks(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same content in larger pieces, because each piece is written on a thread."""
    gathered = bytearray()
    async for chunk in content:
        gathered += chunk
        if len(gathered) >= _BLOCK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


_LIFECYCLE_VALUES: Final = 100
_PLACE: Final = body_of("application/json", {"$ref": "#/components/schemas/UploadRequest"})


def _taking(model: type[BaseModel] | None) -> Described:
    """Return the descriptions of the responses of a route that takes files."""
    return {200: {"model": model}, **REFUSALS, 507: {"model": schema.Fault, "description": "No room for more uploads"}}


class Storage:
    """Answers uploads."""

    def __init__(self, uploads: Uploads, tokens: Tokens, bodies: Bodies, max_bytes: int) -> None:
        """Make the routes.

        Args:
            max_bytes: the largest file that is accepted.
        """
        self._uploads = uploads
        self._tokens = tokens
        self._bodies = bodies
        self._max_bytes = max_bytes
        self.routes = Routes("uploads")
        add = self.routes.add
        add("POST", "/storage/upload/initiate", self.initiate, _taking(schema.UploadPlace), openapi_extra=_PLACE)
        add("POST", "/storage/auth/token", self.token, _taking(schema.UploadToken))
        add("POST", "/files/upload", self.upload, _taking(schema.Uploaded), openapi_extra=BYTES)
        add("POST", "/storage/upload/initiate-multipart", self.parts)
        add("POST", "/files/upload/multipart", self.parts)
        put = {**_taking(None), 200: {"description": "Kept"}, 404: {"model": schema.Fault}}
        add("PUT", "/files/upload/{token}/{name}", self.put, put, openapi_extra=BYTES)

    async def initiate(self, request: Request) -> Response:
        """Return where to send a file, and the url that names it afterwards."""
        async with self._bodies.document(request) as body:
            try:
                asked = schema.UploadRequest.model_validate({} if body.document is None else body.document)
            except ValidationError:
                return error(400, "expected an object with content_type and file_name", "bad_request")
        token, name, links = self._tokens.new_upload(), safe_name(asked.file_name), caller_of(request).links
        place = links.file(f"upload/{self._tokens.writable(token)}", name)
        return JSONResponse({"upload_url": place, "file_url": links.file(token, name)})

    async def put(self, request: Request, token: str, name: str) -> Response:
        """Receive a file that was announced; the url itself is the permission, for one file."""
        upload = self._tokens.upload_of(token)
        if upload is None:
            return error(404, "no such place to upload to", "not_found")
        try:
            await self._take(request, upload, name)
        except AlreadyThere:
            return error(
                403, "another file was uploaded here before, and files do not change; ask for a new place", "forbidden"
            )
        return JSONResponse({})

    async def token(self, request: Request) -> Response:
        """Return a token for uploads."""
        caller = caller_of(request)
        token, ends = self._tokens.for_uploads(caller.key)
        answer = {"token": token, "token_type": "Bearer", "base_url": caller.links.base, "expires_at": ends.isoformat()}
        return JSONResponse(answer)

    async def upload(self, request: Request) -> Response:
        """Receive a file; the header X-Fal-File-Name names it."""
        token = self._tokens.new_upload()
        name = await self._take(request, token, request.headers.get("x-fal-file-name"))
        return JSONResponse({"access_url": caller_of(request).links.file(token, name)})

    async def parts(self) -> Response:
        """Refuse a file that is sent in parts."""
        return error(
            413,
            f"expected a file of up to {self._max_bytes} bytes; larger ones cannot be read anyway",
            "file_too_large",
        )

    async def _take(self, request: Request, token: str, name: str | None) -> str:
        about = self._uploads.wanted(request.headers.get("content-type"), name, _life_s(request))
        await self._uploads.write(token, about, chunks(request, self._max_bytes))
        return about.file_name


def _life_s(request: Request) -> float | None:
    """Return how many seconds the client wants the file to be kept, or None."""
    try:
        wanted = read_document(request.headers.get("x-fal-object-lifecycle", "{}"), _LIFECYCLE_VALUES)
        life_s = wanted.get("expiration_duration_seconds")
    except (ValueError, AttributeError):
        return None
    is_number = isinstance(life_s, int | float) and not isinstance(life_s, bool)
    return float(life_s) if is_number and 0 < life_s < 1e10 else None
