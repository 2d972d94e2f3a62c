"""What clients have named as sources, for error bodies of jobs that fail later.

A job that has ended keeps nothing of its request, and a body may be large: so only the urls are kept, shortened, of the
newest requests, in memory. After a restart an error body names the place without what was found there.
"""

from collections import OrderedDict
from typing import Any, Final

from renderer.frontends.http.answers import at, shortened

_URLS_KEPT: Final = 100_000


class Inputs:
    """The urls of the newest requests."""

    def __init__(self) -> None:
        self._urls: OrderedDict[str, list[Any]] = OrderedDict()
        self._count = 0

    def keep(self, job_id: str, document: object) -> None:
        """Remember the urls of a request."""
        images = at(document, ("images",))
        urls = [shortened(at(image, ("url",))) for image in images] if isinstance(images, list) else []
        self._count += len(urls) - len(self._urls.pop(job_id, ()))
        self._urls[job_id] = urls
        while self._count > _URLS_KEPT:
            self._count -= len(self._urls.popitem(last=False)[1])

    def of(self, job_id: str) -> dict[str, Any]:
        """Return as much of the request's document as is known."""
        return {"images": [{"url": url} for url in self._urls.get(job_id, ())]}
