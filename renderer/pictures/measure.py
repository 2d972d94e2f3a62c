"""How large the still is that the canvas follows: the first one, or the one with the most pixels.

Sizes stand in headers, so nothing is decoded here; but a file has to be fetched before its header can be read. The
first still, and downloads as far as `_KEPT_BYTES` goes, are kept for the decoding that follows; a local file is read
again then, mostly from the kernel's cache.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from renderer.config import PictureSettings
from renderer.errors import JobError
from renderer.geometry import Size
from renderer.logs import current_job
from renderer.pictures.decode import read_size
from renderer.pictures.fetch import Content, Fetcher, is_download
from renderer.pictures.marks import Marks

_KEPT_BYTES: Final = 64 << 20
_THREADS: Final = 4  # they wait for servers and disks


@dataclass(frozen=True, slots=True)
class Measured:
    """The still that the canvas follows.

    Attributes:
        image: its place in the request.
        at_hand: what was fetched on the way, by url.
    """

    image: int
    size: Size
    at_hand: dict[str, Content] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurer:
    """Fetches stills and reads their headers."""

    fetcher: Fetcher
    settings: PictureSettings
    marks: Marks

    def first(self, urls: Sequence[str]) -> Measured:
        """Measure the first still.

        Raises:
            JobError: it cannot be had; `loc` says where.
        """
        content, size = self._measure(urls[0], 0)
        return Measured(0, size, {urls[0]: content})

    def largest(self, urls: Sequence[str], say: Callable[[], None]) -> Measured:
        """Measure every still; of several with the most pixels the first is taken.

        Args:
            say: called after each of them.

        Raises:
            JobError: one cannot be had; `loc` names the first place that asks for it.
        """
        places: dict[str, int] = {}
        for place, url in enumerate(urls):
            places.setdefault(url, place)
        kept = _Kept()

        def measured(url: str) -> Size:
            content, size = self._measure(url, places[url])
            if isinstance(content, bytes) and is_download(url):
                kept.add(url, content)
            return size

        initializer, arguments = current_job.set, (current_job.get(),)
        with ThreadPoolExecutor(_THREADS, "still", initializer=initializer, initargs=arguments) as threads:
            found = Measured(0, Size(1, 1), kept.contents)
            try:
                for url, size in zip(places, threads.map(measured, places), strict=True):
                    say()
                    if places[url] == 0 or size.pixels > found.size.pixels:
                        found = Measured(places[url], size, kept.contents)
            finally:
                threads.shutdown(cancel_futures=True)
        return found

    def _measure(self, url: str, image: int) -> tuple[Content, Size]:
        try:
            content = self.fetcher.fetch(url)
            with self.marks.decoding(image):
                return content, read_size(content, self.settings.max_image_pixels)
        except JobError as error:
            raise error.at("images", image, "url") from error.__cause__


class _Kept:
    """Downloads, as many as fit."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}
        self._left_bytes = _KEPT_BYTES
        self._lock = threading.Lock()

    def add(self, url: str, content: bytes) -> None:
        with self._lock:
            if len(content) <= self._left_bytes:
                self._left_bytes -= len(content)
                self.contents[url] = content
