"""The stills that a video shows: all of a request's, or those that can be read, and the warnings about the others.

An image that cannot be read is left out before the stream is planned anew, never from a stream that has begun: so the
other stills are held and coded as if nobody had asked for it.

Two stills show the same picture if they have the same url, or are local files with the same bytes. That is known before
anything is decoded, so that a picture that comes again is neither read, decoded nor composed again. Files are compared
by size first, by three short samples next, and only those that are still alike by all their bytes: a sequence of
different pictures costs a few system calls each, even where all have one size. A url elsewhere is like no other.
"""

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import itemgetter
from typing import Final

from protocol.errors import MAX_FAULTS
from protocol.schema import OnError, RenderRequest, ResultWarning
from renderer.errors import JobError
from renderer.pictures.fetch import Fetcher
from renderer.timeline import Timeline
from renderer.work import Chapter

_SAMPLE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of one still.

    Attributes:
        image: its place in the request, for errors.
        picture: equal for stills that show the same picture; from `identities`.
    """

    url: str
    image: int
    picture: Hashable


def identities(urls: Sequence[str], fetcher: Fetcher) -> list[Hashable]:
    """Return one value per url; values are equal where the pictures are the same.

    A file that cannot be read is like no other; its fault is raised when it is fetched.
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
    with open(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "blake2b").digest()


_WARNED: Final = {"skip": "image_skipped", "hold": "image_held"}
Faults = Mapping[Hashable, JobError]


@dataclass(frozen=True, slots=True)
class Reel:
    """Stills in order, one hold of the timeline for each."""

    sources: tuple[Source, ...]
    timeline: Timeline

    def first_places(self, faults: Faults) -> list[tuple[int, JobError]]:
        """Return where in the request each picture at fault comes first, with its fault."""
        places: dict[Hashable, int] = {}
        for source in self.sources:
            places.setdefault(source.picture, source.image)
        return sorted(((places[picture], error) for picture, error in faults.items()), key=itemgetter(0))

    def chapters(self, request: RenderRequest) -> tuple[Chapter, ...]:
        """Return the chapters of the video, from each titled still to the next; what comes before has no title."""
        starts = [0, *accumulate(self.timeline.holds)]
        titles = [request.images[source.image].title for source in self.sources]
        begun = [(start, title) for start, title in zip(starts, titles, strict=False) if title]
        if begun and begun[0][0] > 0:
            begun.insert(0, (0, ""))
        ends = [*(start for start, _ in begun[1:]), starts[-1]]
        return tuple(Chapter(start, end, title) for (start, title), end in zip(begun, ends, strict=False))

    def without(self, faults: Faults, on_error: OnError) -> "Reel":
        """Leave pictures out; their time is left out too, or goes to the still before, or to the next at the beginning.

        Args:
            faults: by picture; at least one picture of the reel is not among them.
        """
        good = [place for place, source in enumerate(self.sources) if source.picture not in faults]
        holds = self.timeline.holds
        if on_error == "hold":
            starts = [0, *accumulate(holds)]
            ends = [*(starts[place] for place in good[1:]), starts[-1]]
            kept = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        else:
            kept = [holds[place] for place in good]
        return Reel(tuple(self.sources[place] for place in good), replace(self.timeline, holds=tuple(kept)))


def reel_of(request: RenderRequest, timeline: Timeline, fetcher: Fetcher) -> Reel:
    """Return all stills of a request."""
    urls = [image.url for image in request.images]
    pictures = identities(urls, fetcher)
    return Reel(tuple(Source(url, place, pictures[place]) for place, url in enumerate(urls)), timeline)


def together(faults: Sequence[tuple[int, JobError]], *, is_all: bool) -> JobError:
    """Return one error for all images that cannot be read: the first of them, with the others beside it.

    Args:
        faults: by place in the request, in order; of a picture that comes again the first place.
        is_all: all images were tried, so no other can be at fault.
    """
    first, *others = [_at(place, error) for place, error in faults[:MAX_FAULTS]]
    left = len(faults) - MAX_FAULTS
    first.others = tuple(others)
    if not is_all:
        first.rest = "others were not looked at"
    elif left > 0:
        first.rest = _counted(left, "is at fault, too", "are at fault, too")
    return first


def warnings_of(reel: Reel, faults: Faults, on_error: OnError) -> list[ResultWarning]:
    """Warn of the images that cannot be read: of the first few one by one, and of the others by their number."""
    if on_error == "fail" or not faults:
        return []
    kind = _WARNED[on_error]
    gone = [(source.image, faults[source.picture]) for source in reel.sources if source.picture in faults]
    first = next(source.image for source in reel.sources if source.picture not in faults)
    words = _words_for(on_error, first)
    warnings = [
        ResultWarning(
            type=kind,
            message=f"{words(place)}: {error.message}",
            loc=("images", place, "url"),
        )
        for place, error in gone[:MAX_FAULTS]
    ]
    if left := len(gone) - len(warnings):
        words_for_rest = _counted(left, "is not shown, either", "are not shown, either")
        warnings.append(ResultWarning(type=kind, message=words_for_rest, loc=("images",)))
    return warnings


def _words_for(on_error: OnError, first_shown: int) -> Callable[[int], str]:
    if on_error == "skip":
        return lambda _: "this image is left out, with its time"
    return lambda image: f"the image {'after' if image < first_shown else 'before'} it is shown for its time"


def _at(place: int, error: JobError) -> JobError:
    """Return the error for one of the places that show its picture."""
    found = copy.copy(error)
    found.loc = ("images", place, "url")
    return found


def _counted(count: int, one: str, more: str) -> str:
    return f"1 more image {one}" if count == 1 else f"{count} more images {more}"
