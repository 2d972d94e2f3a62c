"""The hash in an output's name: of all that decides how the video looks, and of nothing else.

The holds in frames stand for `frames`, `duration` and `fps`; the bytes of a local image stand for its path, so that a
tree may be moved. An http url stands for itself: whether its picture has changed is known to its server only. Fields
at their defaults are left out, so that a new field renames nothing.
"""

import hashlib
import json
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Final

from renderer.config import EncodeSettings
from renderer.errors import JobError
from renderer.pictures.fetch import Fetcher
from renderer.work import RenderJob

OUTPUT_FORMAT: Final = 2
"""Raised whenever the same request gives another video than before, be it by another default."""

# They decide when and for whom a video is made, not what is in it.
_OUTSIDE: Final = {"images", "fps", "sync_mode", "priority", "start_timeout", "webhook_url"}
_DIGITS: Final = 12
_UNREADABLE: Final = "unreadable"
_KNOWN_MAX: Final = 100_000

FileState = tuple[int, int, int, int]


class Digests:
    """Hashes of image files; one that is unchanged since it was read is not read again. Safe to use from threads."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Begin with no file that is known.

        Args:
            pool: reads the files; not the one that the callers run in.
        """
        self._pool = pool
        self._known: dict[FileState, str] = {}

    def of_job(self, job: RenderJob, fetcher: Fetcher, encode: EncodeSettings) -> str:
        """Return the hash of a job.

        An image that cannot be read counts as such, since what becomes of it is the renderer's to say.

        Raises:
            CancelledError: the pool was shut down meanwhile.
        """
        request = job.request
        decisive = {
            "format": OUTPUT_FORMAT,
            "fps": str(job.timeline.fps),
            "holds": job.timeline.holds,
            "images": self._of_images([image.url for image in request.images], fetcher),
            "request": request.model_dump(mode="json", exclude=_OUTSIDE, exclude_defaults=True),
            # Not which ffmpeg: its path tells the machine, and a batch may run on many.
            "encode": {"hold_pictures": encode.hold_pictures, "threads": encode.threads},
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:_DIGITS]

    def _of_images(self, urls: list[str], fetcher: Fetcher) -> list[str]:
        try:
            reading = {url: self._pool.submit(self._of_image, url, fetcher) for url in dict.fromkeys(urls)}
        except RuntimeError as error:  # the pool was shut down
            raise CancelledError from error
        try:
            return [reading[url].result() for url in urls]
        finally:
            for future in reading.values():
                future.cancel()

    def _of_image(self, url: str, fetcher: Fetcher) -> str:
        try:
            with fetcher.open_local(url) as handle:
                return f"url:{_of_text(url)}" if handle is None else f"file:{self._of_file(handle)}"
        except (JobError, OSError):
            return _UNREADABLE

    def _of_file(self, handle: int) -> str:
        state = os.fstat(handle)
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._known.get(key)
        if known is None:
            with open(handle, "rb", closefd=False) as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[key] = known
        return known


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
