"""Which stills show the same picture: the same url, or local files with the same bytes.

Known before anything is decoded, so that a picture that comes again is neither read, decoded nor composed again. Files
are compared by size first, by three short samples next, and only those still alike by all their bytes: a sequence of
different pictures costs a few system calls each, even where all have one size. A url elsewhere stands for itself.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from renderer.errors import JobError
from renderer.pictures.fetch import Fetcher

_SAMPLE_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where one still comes from.

    Attributes:
        image: its place in the request, for errors.
        picture: equal for stills that show the same picture; from `identities`.
    """

    url: str
    image: int
    picture: Hashable


def identities(urls: Sequence[str], fetcher: Fetcher) -> list[Hashable]:
    """Return one value per url, equal where the picture is the same.

    A file that cannot be read stands for itself; the fault is raised where it is fetched.
    """
    distinct = list(dict.fromkeys(urls))
    identity: dict[str, Hashable] = dict.fromkeys(distinct)
    for refine in (_size, _samples, _digest):
        alike = Counter(identity.values())
        for url in distinct:
            if alike[identity[url]] > 1:
                identity[url] = _refined(url, identity[url], refine, fetcher)
    return [identity[url] for url in urls]


def _refined(url: str, known: Hashable, refine: Callable[[int], Hashable], fetcher: Fetcher) -> Hashable:
    try:
        with fetcher.open_local(url) as handle:
            return url if handle is None else (known, refine(handle))
    except (JobError, OSError):
        return url


def _size(handle: int) -> int:
    return os.fstat(handle).st_size


def _samples(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    places = (0, size // 2, max(0, size - _SAMPLE_BYTES))
    return hashlib.blake2b(b"".join(os.pread(handle, _SAMPLE_BYTES, place) for place in places)).digest()


def _digest(handle: int) -> bytes:
    digest = hashlib.blake2b()
    place = 0
    while chunk := os.pread(handle, _CHUNK_BYTES, place):
        digest.update(chunk)
        place += len(chunk)
    return digest.digest()
