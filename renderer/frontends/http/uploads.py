"""Files that clients have sent ahead of a request, each in a directory with a name that cannot be guessed.

    uploads/TOKEN/content       the bytes
    uploads/TOKEN/about.json    type, name and end of life

A request that names one gets it as an attachment by a second link to the file, whatever host stands in the url: nothing
is asked of the network, and the job does not mind when the upload goes.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from renderer.config import RetentionSettings
from renderer.disk import is_full, open_private, sync
from renderer.errors import FetchFailed, StorageFull, StoreFailed
from renderer.frontends.http.links import Links
from renderer.frontends.http.schema import ImagesToVideoInput
from renderer.frontends.http.tokens import is_upload

log = logging.getLogger(__name__)

_SWEEP_S: Final = 60.0
_BLOCK_BYTES: Final = 1 << 20
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}/[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known of an uploaded file."""

    content_type: str
    file_name: str
    ends_at: float
    size_bytes: int


class Uploads:
    """The directory of uploads; on one loop."""

    def __init__(self, directory: Path, settings: RetentionSettings) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self._directory = directory
        self._settings = settings
        self._in_use: Counter[str] = Counter()
        self._size_bytes = sum(about.size_bytes for token in os.listdir(directory) if (about := self.about(token)))  # noqa: PTH208 - names

    def path(self, token: str) -> Path:
        return self._directory / token / "content"

    def about(self, token: str) -> Upload | None:
        """Return what is known of an upload; None if there is none, or its time is over."""
        if not is_upload(token):
            return None
        try:
            fields = json.loads((self._directory / token / "about.json").read_bytes())
            found = Upload(**fields)
        except (OSError, ValueError, TypeError):
            return None
        return found if found.ends_at > time.time() else None

    # Coming in.

    async def write(self, token: str, upload: Upload, content: AsyncIterator[bytes]) -> None:
        """Keep a file; it appears when it is whole, and on disk.

        Args:
            upload: its size is what is found.

        Raises:
            StorageFull, StoreFailed: the disk does not take it. Whatever `content` raises.
        """
        place = self._directory / token
        part = place / f"part-{time.monotonic_ns()}"
        size_bytes = 0
        try:
            await asyncio.to_thread(place.mkdir, mode=0o700, exist_ok=True)
            with open(part, "wb", opener=open_private) as file:  # noqa: ASYNC230 - Path.open has no opener
                async for block in _blocks(content):
                    size_bytes += len(block)
                    self._reserve(len(block))
                    await asyncio.to_thread(file.write, block)
                await asyncio.to_thread(_flush, file)
            about = Upload(upload.content_type, upload.file_name, upload.ends_at, size_bytes)
            await asyncio.to_thread(_put_in_place, part, about)
        except OSError as error:
            self._size_bytes -= size_bytes
            if is_full(error.errno):
                raise StorageFull("the disk is full, so the file could not be kept; try again later") from error
            raise StoreFailed("the file could not be kept") from error
        except BaseException:
            self._size_bytes -= size_bytes
            raise
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
                place.rmdir()  # nothing was written

    def _reserve(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self._settings.uploads_bytes:
            raise StorageFull("there is no room for more uploads; try again later")

    def wanted(self, content_type: str | None, file_name: str | None, life_s: float | None) -> Upload:
        """Return what a client says of a file, as far as it is believed."""
        kind = (content_type or "").partition(";")[0].strip()
        ends_at = time.time() + min(self._settings.uploads_s, life_s or self._settings.uploads_s)
        return Upload(kind if _TYPE.fullmatch(kind) else "application/octet-stream", safe_name(file_name), ends_at, 0)

    # Being used.

    @contextlib.contextmanager
    def taken(self, request: ImagesToVideoInput, links: Links) -> Iterator[tuple[ImagesToVideoInput, list[Path]]]:
        """Lend the request with the uploads that it names as attachments.

        Raises:
            FetchFailed: a url names a file of this door that is not there.
        """
        tokens: dict[str, str] = {}
        images = []
        for index, image in enumerate(request.images):
            token = self._token(image.url, links)
            if token is None:
                images.append(image)
                continue
            if token not in tokens:
                if self.about(token) is None:
                    raise FetchFailed("no such file, or its time is over").at("images", index, "url")
                tokens[token] = f"cid:{len(tokens)}"
            images.append(image.model_copy(update={"url": tokens[token]}))
        self._in_use.update(list(tokens))
        try:
            yield (
                request.model_copy(update={"images": tuple(images)}) if tokens else request,
                [self.path(token) for token in tokens],
            )
        finally:
            self._in_use.subtract(list(tokens))

    def _token(self, url: str, links: Links) -> str | None:
        """Return the token of a url that names a file of this door; None for one that the fetcher is to read."""
        if "/files/" not in url[:512]:
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        *_, before, token, _ = ["", "", *parts.path.split("/")]
        if before != "files" or parts.scheme not in {"", "http", "https"}:
            return None
        is_ours = parts.netloc == urlsplit(links.base).netloc or self.about(token) is not None
        return token if is_ours else None

    # Going.

    async def run(self) -> None:
        """Remove what is too old, now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(_SWEEP_S)

    def sweep(self) -> None:
        """Remove the uploads whose time is over, and what broken connections have left."""
        for place in self._directory.iterdir():
            token = place.name
            if self.about(token) is not None or self._in_use[token] > 0:
                continue
            try:
                is_fresh = time.time() - place.stat().st_mtime < _SWEEP_S  # it may just be coming
                size_bytes = 0 if is_fresh else _stored_bytes(place)
            except OSError:
                continue
            if not is_fresh:
                shutil.rmtree(place, ignore_errors=True)
                self._size_bytes -= size_bytes
                log.info("an upload of %d bytes was removed", size_bytes, extra={"action": "retention"})


def safe_name(name: str | None) -> str:
    """Return the last part of a name, without what could harm in a path, a header or a page."""
    last = re.split(r"[/\\]", name or "")[-1]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '"<>|:*?%#').strip(" .")
    return kept[-120:] or "file"


async def _blocks(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same in larger pieces: each is written on a thread."""
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


def _put_in_place(part: Path, about: Upload) -> None:
    place = part.parent
    part.rename(place / "content")
    described = part.with_suffix(".json")
    with open(described, "w", encoding="utf-8", opener=open_private) as file:
        json.dump(asdict(about), file)
        file.flush()
        os.fsync(file.fileno())
    described.rename(place / "about.json")
    for directory in (place, place.parent):
        sync(directory)


def _stored_bytes(place: Path) -> int:
    try:
        return int(json.loads((place / "about.json").read_bytes())["size_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
