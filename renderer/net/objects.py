"""Objects in S3, Google Cloud Storage and Azure, read, listed, put and signed for by obstore; nothing else touches it.

Credentials, and the address of a store that is not at its vendor's, come from where all tools of the stores look for
them: environment variables, or the identity of the machine or pod. No request can set them. obstore's messages quote
the server's answer, with the id of the key and what was signed. So only the status and the code are read from them, and
they go neither into our messages nor into the cause of an error.

**A put is one request** of up to 5 GiB, the most that every store takes at once, and it only creates: an object that
has the name already is not changed. An upload in parts would leave parts behind when a process is killed, could not be
made to create only, and would save no memory, since the file is mapped and sent from there. The object has the SHA-256
of its content as metadata, which S3 checks too, and a mark of what it was made for: an attempt that was lost after its
put leaves an object that the next attempt finds, with the same mark but other bytes, since a video holds the time of
its creation.
"""

import contextlib
import hashlib
import importlib.util
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from protocol.objects import ObjectUrl, is_among, is_object, parse_object
from protocol.schema import RenderResult
from renderer.config import FetchSettings, RenderSettings
from renderer.errors import (
    BackendError,
    FetchFailed,
    FileTooLarge,
    InvalidRequest,
    NotSupported,
    OutputFailed,
    SourceUnavailable,
    StillreelError,
)
from renderer.version import VERSION

MOST_BYTES: Final = 5 << 30
OUTPUT: Final = ("output", "url")  # the field of a request

_CHUNK_BYTES: Final = 1 << 20
_LISTED_AT_ONCE: Final = 1000
_SHA256, _MADE_FOR = "sha256", "stillreel"  # Azure wants identifiers for names of metadata
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z.]{1,64})</Code>")
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_IDENTITY: Final = re.compile(r"performing token request|://(169\.254\.|\[fd00:ec2::|metadata\.google)")
_NOT_NOW: Final = {408, 429, 500, 502, 503, 504}  # RFC 9110, 15; RFC 6585, 4
_TAKEN: Final = (
    "an object named {} exists already and has another content; name another one for the video, or remove it"
)
_UNLISTED: Final = (
    "an object below it has a name with an empty part, '.', '..' or a control character, with which nothing can be "
    "listed; rename that object, or name a prefix without it"
)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


@dataclass(frozen=True, slots=True)
class Access:
    """How stores are reached.

    Attributes:
        timeout_s: for one request, its body included.
        attempts: of a request that is not answered, or with "not now".
        ca_file: PEM with authorities that are trusted beside the system's.
    """

    timeout_s: float = 60
    attempts: int = 3
    ca_file: Path | None = None


def access_for(settings: FetchSettings, timeout_s: float | None = None) -> Access:
    """Return how stores are reached under these settings.

    Args:
        timeout_s: in place of a download's.
    """
    return Access(timeout_s or settings.download_timeout_s, settings.download_attempts, settings.ca_file)


@dataclass(frozen=True, slots=True)
class Found:
    """What a store knows of an object.

    Attributes:
        version: its version or else its entity tag, which changes whenever its content does.
        sha256: the hash of its content, if we have put it; empty otherwise.
        made_for: the mark of what we have put it for; empty otherwise.
    """

    size_bytes: int
    version: str
    sha256: str
    made_for: str


def missing_extra() -> str | None:
    """Return the message for a machine without obstore; None if it is installed."""
    if importlib.util.find_spec("obstore"):
        return None
    return "object storage needs the extra `objects`: pip install 'stillreel[objects]'"


def check_output(url: str, allowed: tuple[str, ...]) -> None:
    """Refuse to put a video where the settings do not allow it.

    Raises:
        NotSupported, InvalidRequest: with the place in the request.
    """
    if missing := missing_extra():
        raise NotSupported(missing, loc=OUTPUT)
    if not url.lower().endswith(".mp4"):
        raise InvalidRequest("expected a name that ends in .mp4, which is what a daemon makes", loc=OUTPUT)
    if not is_among(parse_object(url), allowed):
        raise InvalidRequest("not in a bucket that may be written (outputs.allow_objects)", loc=OUTPUT)


def read(url: ObjectUrl, max_bytes: int, access: Access, kind: str = "image") -> bytes:
    """Return an object's content.

    Raises:
        FetchFailed: it does not exist, or may not be read; SourceUnavailable if it may work later.
        FileTooLarge: it has more than `max_bytes`; no more than that is read.
    """
    import obstore  # noqa: PLC0415 - an extra, which few jobs need

    too_large = f"expected at most {max_bytes} bytes, found {{}} (fetch.max_{kind}_bytes)"
    with _in_our_words(_not_read):
        answer = obstore.get(_store(url.scheme, url.bucket, access), url.name)
        if answer.meta["size"] > max_bytes:
            raise FileTooLarge(too_large.format(answer.meta["size"]))
        content = bytearray()
        for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
            content += memoryview(chunk)
            if len(content) > max_bytes:
                raise FileTooLarge(too_large.format("more"))
    return bytes(content)


def find(url: ObjectUrl, access: Access) -> Found | None:
    """Return what the store knows of an object; None if it does not exist.

    Raises:
        FetchFailed: it may not be asked for; as SourceUnavailable if it may work later.
    """
    with _in_our_words(_not_read):
        return _found(_store(url.scheme, url.bucket, access), url)


def _found(store: Any, url: ObjectUrl) -> Found | None:
    import obstore  # noqa: PLC0415 - as above

    try:
        answer = obstore.get(store, url.name, options={"head": True})
    except FileNotFoundError:
        return None
    meta = answer.meta
    told = [str(answer.attributes.get(name, "")) for name in (_SHA256, _MADE_FOR)]
    return Found(meta["size"], meta["version"] or meta["e_tag"] or "", *told)


def names_below(prefix: ObjectUrl, access: Access) -> Iterator[str]:
    """Yield the names of all objects below a prefix, from there on; a page of them is asked for when it is needed.

    Raises:
        FetchFailed: they may not be listed; as SourceUnavailable if it may work later.
    """
    import obstore  # noqa: PLC0415 - as above

    begins = len(prefix.name) + 1 if prefix.name else 0
    with _in_our_words(_not_read):
        store = _store(prefix.scheme, prefix.bucket, access)
        for page in obstore.list(store, prefix.name or None, chunk_size=_LISTED_AT_ONCE):
            for each in page:
                yield each["path"][begins:]


def refuse_taken(urls: Sequence[ObjectUrl], made_for: str, access: Access) -> None:
    """Refuse to put several objects if one of their names is taken; called before the first of them is put.

    Raises:
        InvalidRequest: there is an object of that name that was made for something else, or the store refuses.
        OutputFailed: the store does not say now.
    """
    for url in urls:
        with _in_our_words(_not_put):
            found = _found(_store(url.scheme, url.bucket, access), url)
        if found and found.made_for != made_for:
            raise InvalidRequest(_TAKEN.format(url.file_name), loc=OUTPUT)


def put_file(url: ObjectUrl, file: Path, content_type: str, made_for: str, access: Access) -> int:
    """Make an object of a file, as `put` does."""
    size_bytes = file.stat().st_size
    if size_bytes > MOST_BYTES:
        words = f"expected a video of up to {MOST_BYTES} bytes, which is what a store takes at once, found {size_bytes}"
        raise InvalidRequest(words, loc=OUTPUT)
    with file.open("rb") as opened:
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return put(
        url, content, content_type, made_for, access
    )  # a put that timed out may hold the mapping a little longer


def put(url: ObjectUrl, content: "bytes | mmap.mmap", content_type: str, made_for: str, access: Access) -> int:
    """Create an object, and return its size; an existing one with this mark or this content is kept.

    Args:
        made_for: a mark that only objects have which may stand for one another.

    Raises:
        InvalidRequest: the name is taken by something else, or the store refuses; with the place in the request.
        OutputFailed: it could not be put now.
    """
    import obstore  # noqa: PLC0415 - as above

    size_bytes, sha256 = len(content), hashlib.sha256(content).hexdigest()
    about: Any = {"Content-Type": content_type, _SHA256: sha256, _MADE_FOR: made_for}
    with _in_our_words(_not_put):
        store = _store(url.scheme, url.bucket, access)
        try:
            obstore.put(store, url.name, content, mode="create", attributes=about, use_multipart=False)
            is_ours = True
        except obstore.exceptions.AlreadyExistsError:
            is_ours = False
        found = _found(store, url)
        if found is None or (is_ours and (found.size_bytes, found.sha256) != (size_bytes, sha256)):
            raise OutputFailed("the store does not hold the video as it was sent")
        if is_ours or found.made_for == made_for or (found.size_bytes == size_bytes and _hash(store, url) == sha256):
            return found.size_bytes
    raise InvalidRequest(_TAKEN.format(url.file_name), loc=OUTPUT)


def _hash(store: Any, url: ObjectUrl) -> str:
    import obstore  # noqa: PLC0415 - as above

    digest = hashlib.sha256()
    for chunk in obstore.get(store, url.name).stream(min_chunk_size=_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def signed(url: ObjectUrl, seconds: int, access: Access) -> str:
    """Return an https url that opens the object for anybody who has the url, for this many seconds.

    Raises:
        OutputFailed: there are no credentials now.
    """
    import obstore  # noqa: PLC0415 - as above

    with _in_our_words(lambda words, _: OutputFailed(f"the video's url could not be signed: {words}")):
        store = _store(url.scheme, url.bucket, access)
        return str(obstore.sign(store, "GET", url.name, timedelta(seconds=seconds)))


async def opened(result: RenderResult, settings: RenderSettings) -> RenderResult:
    """Return a result with signed urls for a client, if its files are objects and the settings say for how long.

    Signed urls are made for each answer and never stored.

    Raises:
        OutputFailed: there are no credentials now.
    """
    seconds = settings.outputs.presign_s
    if not (seconds and is_object(result.video.url)):
        return result
    import asyncio  # noqa: PLC0415 - the daemon has it, and a render by the command line does not need it

    access = access_for(settings.fetch)
    return await asyncio.to_thread(result.with_urls, lambda file: signed(parse_object(file.url), seconds, access))


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, access: Access) -> Any:
    """Return a store, which keeps its connections and credentials for the next request."""
    from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415 - as above

    client: Any = {
        "allow_http": True,  # an endpoint that the environment names may be on this machine
        "timeout": timedelta(seconds=access.timeout_s),
        "connect_timeout": timedelta(seconds=min(10.0, access.timeout_s)),
        "user_agent": f"stillreel/{VERSION}",
        **({"root_certificate": access.ca_file.read_bytes()} if access.ca_file else {}),
    }
    pauses: Any = {
        "init_backoff": timedelta(seconds=_FIRST_PAUSE_S),
        "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
    }
    retry: Any = {
        "max_retries": access.attempts - 1,
        "backoff": pauses,
        "retry_timeout": timedelta(seconds=access.attempts * (access.timeout_s + _LONGEST_PAUSE_S)),
    }
    if scheme == "gs":
        return GCSStore(bucket, client_options=client, retry_config=retry)
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)
    return S3Store(bucket, client_options=client, retry_config=retry, checksum_algorithm="SHA256")


Make = Callable[[str, bool], StillreelError]
"""Given words, and whether it may work later."""


def _not_read(words: str, may_work_later: bool) -> FetchFailed:
    return SourceUnavailable(words) if may_work_later else FetchFailed(words)


def _not_put(words: str, may_work_later: bool) -> BackendError | InvalidRequest:
    words = f"the video could not be put: {words}"
    return OutputFailed(words) if may_work_later else InvalidRequest(words, loc=OUTPUT)


@contextlib.contextmanager
def _in_our_words(make: Make) -> Iterator[None]:
    """Turn what obstore raises into our errors, without its text."""
    from obstore.exceptions import (  # noqa: PLC0415 - as above
        BaseError,
        InvalidPathError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        yield
    except InvalidPathError:
        raise make(_UNLISTED, False) from None
    except FileNotFoundError as error:
        is_bucket = _NO_BUCKET.search(str(error))
        raise make("there is no such bucket" if is_bucket else "there is no such object", False) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise make(f"the store refuses access{_reason(str(error))}", False) from None
    except (BaseError, OSError, ValueError) as error:
        raise make(*_told(str(error))) from None


def _told(text: str) -> tuple[str, bool]:
    """Return what to say of a failure, and whether it may work later."""
    before, _, _ = text.partition("\n")
    status = _STATUS.search(before)
    if _NO_BUCKET.search(text):
        return "there is no such bucket", False
    if _IDENTITY.search(before.partition(" - ")[0]):
        return "no credentials were found, neither in the environment nor as the identity of this machine", False
    if "Account must be specified" in before:
        return "expected the account in AZURE_STORAGE_ACCOUNT_NAME, found none", False
    if "LOCATION" in before:
        return "the bucket is in another region; AWS_REGION names it", False
    if status is None:
        is_network = "HTTP error" in before or "request or response body" in before
        return ("the store does not answer, or the answer broke off" if is_network else "the store failed"), is_network
    return f"the store answered {status[1]}{_reason(text)}", int(status[1]) in _NOT_NOW


def _reason(text: str) -> str:
    code = _CODE.search(text)
    return f" ({code[1]})" if code else ""
