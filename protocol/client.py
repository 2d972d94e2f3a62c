"""Ask a stillreel daemon for videos: AsyncClient, and Client, the same for programs without asyncio.

A call is sent again when the server stays silent or cannot be reached. That is safe, because render and submit carry a
request_id, which is generated if the caller gives none, and asking again under it returns the same job. So a daemon may
be restarted, drained or killed during a call. An error that the server answers with is not retried, even if it is
`retryable`: when to try again is the caller's decision. The one exception is a daemon that says it is stopping.

A video is fetched in parts, and its file gets its name once it is whole.
"""

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ValidationError

from protocol.attachments import Attachment, pack_request
from protocol.connection import Connection
from protocol.curve import read_curve_file
from protocol.endpoint import DEFAULT_ENDPOINT
from protocol.errors import ClientError, ClientTimeout
from protocol.patience import Patience
from protocol.schema import (
    FileField,
    Health,
    JobLog,
    Jobs,
    JobsQuery,
    JobStatus,
    LogLine,
    Rendered,
    RenderRequest,
    StateName,
    VideoPart,
)
from protocol.wire import Answer, Part
from protocol.words import wrongs_in

_POLL_S = 0.5
_PART_SILENCE_S = 15.0  # a part of a video is a large answer; a line of 1.2 Mbit/s brings it in this time

Request = RenderRequest | Mapping[str, Any]
OnProgress = Callable[[JobStatus], None]

_Model = TypeVar("_Model", bound=BaseModel)
_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")


class AsyncClient:
    """A client for one event loop; any number of calls may wait at the same time.

    Every call raises RemoteError for an error that the server answered with, Unreachable or ClientTimeout if no answer
    came, and ClientError for an answer that cannot be read. The client stays usable after each of them. While a daemon
    says that it is stopping, calls wait for the next one; RemoteError is raised once patience_s has passed.

    Args:
        endpoint: a ZeroMQ address, such as "tcp://127.0.0.1:5590" or "ipc:///run/stillreel.sock".
        curve: the file that `stillreel keys curve` wrote for this client, if the daemon asks for keys. A file that
            cannot be used raises BadCurveFile at once; a key that the daemon does not accept ends calls with
            KeyRefused.
        timeout_s: limit for each call that does not set its own; none by default.
        connect_timeout_s: how long to wait for the first message from a server.
        silence_s: how long the server may say nothing about a call before it is sent again.
        patience_s: how long the server may say nothing useful about a call, repeats included, before it is given up.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        curve: str | Path | None = None,
        timeout_s: float | None = None,
        connect_timeout_s: float = 5.0,
        silence_s: float = 5.0,
        patience_s: float = 120.0,
    ) -> None:
        self._patience = Patience(timeout_s, connect_timeout_s, silence_s, patience_s)
        self._connection = Connection(endpoint, None if curve is None else read_curve_file(curve))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._connection!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # What a server can be asked.

    async def render(
        self,
        request: Request,
        *,
        attachments: Sequence[Attachment] = (),
        progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Rendered:
        """Return the result once the video is done.

        Args:
            request: a RenderRequest, or its fields as a mapping, which only the server checks.
            attachments: what the urls `cid:0`, `cid:1` and so on name; they must not change until the call returns.
            progress: called about once a second, on the loop's thread. What it raises ends the call, not the job.
            timeout_s: limit for this call. The job continues, and can be found again under its request_id.
        """
        params, frames = pack_request(request, attachments)
        limits = self._patience if timeout_s is None else replace(self._patience, timeout_s=timeout_s)
        return _rendered(await self._ask("render", params | {"progress": True}, frames, progress, limits))

    async def submit(self, request: Request, attachments: Sequence[Attachment] = ()) -> JobStatus:
        """Return as soon as the server has accepted the job; the answer holds its request_id."""
        params, frames = pack_request(request, attachments)
        return read_answer(JobStatus, (await self._ask("submit", params, frames)).result)

    async def status(self, request_id: str) -> JobStatus:
        """Return a job's status; one that failed is COMPLETED and has an error."""
        return read_answer(JobStatus, (await self._ask("status", {"request_id": request_id})).result)

    async def result(self, request_id: str) -> Rendered:
        """Return the result of a finished job, or raise the RemoteError that it failed with."""
        return _rendered(await self._ask("result", {"request_id": request_id}))

    async def wait(
        self, request_id: str, *, progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Rendered:
        """Return the result of a submitted job once it is done; see `render` for the arguments.

        A server that has answered this client before may be unreachable for up to patience_s.
        """
        limit_s = self._patience.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._follow(request_id, progress)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ClientTimeout(f"{request_id} was not done within {limit_s:g} s") from error

    async def video(self, request_id: str, file: FileField = "video") -> AsyncIterator[bytes]:
        """Yield the video of a finished job part by part, so that only one part is in memory.

        Args:
            file: the field of the result that names another file, such as "poster", to get that one.

        The time limits apply to each part. Raises the RemoteError of a job that failed.
        """
        download = _Download()
        while not download.is_whole:
            yield await self._part(request_id, file, download)

    async def download(self, request_id: str, path: str | Path, file: FileField = "video") -> None:
        """Fetch the video of a finished job into a file, which appears, or is replaced, once it is complete.

        Args:
            file: as for `video`.

        Raises:
            OSError: the file cannot be written.
        """
        with _whole_file(Path(path)) as place:
            async for part in self.video(request_id, file):
                await asyncio.to_thread(place.write, part)

    async def cancel(self, request_id: str) -> JobStatus:
        """Cancel a job; one that has finished is not changed."""
        return read_answer(JobStatus, (await self._ask("cancel", {"request_id": request_id})).result)

    async def logs(self, request_id: str) -> list[LogLine]:
        """Return those lines of a job's log that clients may read."""
        return list(read_answer(JobLog, (await self._ask("logs", {"request_id": request_id})).result).lines)

    async def retry(self, request_id: str) -> JobStatus:
        """Submit a job that failed, expired or was cancelled again, as a new job, and return the new job's status.

        The server refuses if the job's pictures came with the request and were removed with the job.
        """
        return read_answer(JobStatus, (await self._ask("retry", {"request_id": request_id})).result)

    async def jobs(self, states: Iterable[StateName] = (), limit: int = 100) -> list[JobStatus]:
        """Return the newest jobs that the server knows, in order of arrival.

        Args:
            states: only jobs in one of these states; all jobs if empty.
            limit: 1 to 1000.
        """
        # Defaults are not sent: a server of an earlier version takes no params here.
        query = JobsQuery(states=tuple(states), limit=limit).model_dump(mode="json", exclude_defaults=True)
        return list(read_answer(Jobs, (await self._ask("jobs", query)).result).jobs)

    async def health(self) -> Health:
        """Return whether the server is ready, how busy it is, and which encoder it uses."""
        return read_answer(Health, (await self._ask("health", {})).result)

    async def close(self) -> None:
        """Close the socket and end the calls that still wait with a ClientError; safe to call again."""
        await self._connection.close()

    async def _follow(self, request_id: str, progress: OnProgress | None) -> Rendered:
        while True:
            status = read_answer(JobStatus, (await self._poll("status", request_id)).result)
            if progress is not None:
                progress(status)
            if status.status == "COMPLETED":
                return _rendered(await self._poll("result", request_id))
            await asyncio.sleep(_POLL_S)

    async def _part(self, request_id: str, file: FileField, download: "_Download") -> bytes:
        limits = self._patience
        connect_timeout_s = limits.patience_s if self._connection.is_heard else limits.connect_timeout_s
        limits = replace(
            limits,
            connect_timeout_s=max(connect_timeout_s, _PART_SILENCE_S),
            silence_s=max(limits.silence_s, _PART_SILENCE_S),
        )
        question: dict[str, str | int] = {"request_id": request_id, "offset": download.taken_bytes}
        if file != "video":  # a server of an earlier version knows no other
            question["file"] = file
        answer = await self._ask("video", question, limits=limits)
        return download.take(read_answer(VideoPart, answer.result), answer.attachments)

    async def _poll(self, method: str, request_id: str) -> Answer:
        """Ask as one step of a longer wait, with the patience of a single call that the server has answered before."""
        connect_timeout_s = self._patience.patience_s if self._connection.is_heard else self._patience.connect_timeout_s
        limits = replace(self._patience, timeout_s=None, connect_timeout_s=connect_timeout_s)
        return await self._ask(method, {"request_id": request_id}, limits=limits)

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        attachments: Sequence[Part] = (),
        progress: OnProgress | None = None,
        limits: Patience | None = None,
    ) -> Answer:
        watch = None if progress is None else lambda params: progress(read_answer(JobStatus, params))
        return await self._connection.ask(method, params, limits or self._patience, attachments, watch)


def _blocking(
    ask: Callable[Concatenate[AsyncClient, _Params], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate["Client", _Params], _Result]:
    """Return a method of Client that takes the same arguments and returns once the answer is there."""

    @functools.wraps(ask)
    def ask_and_wait(self: "Client", /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        return self._run(ask(self._client, *args, **kwargs))

    return ask_and_wait


class Client:
    """AsyncClient for programs without asyncio: the same arguments, calls and errors, one call at a time.

    One client per thread; not inside a running event loop. Ctrl-C ends the call and leaves the client usable.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        curve: str | Path | None = None,
        timeout_s: float | None = None,
        connect_timeout_s: float = 5.0,
        silence_s: float = 5.0,
        patience_s: float = 120.0,
    ) -> None:
        self._client = AsyncClient(
            endpoint,
            curve=curve,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            silence_s=silence_s,
            patience_s=patience_s,
        )
        # pyzmq needs add_reader, which the default loop on Windows lacks.
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._client!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    render = _blocking(AsyncClient.render)
    submit = _blocking(AsyncClient.submit)
    status = _blocking(AsyncClient.status)
    result = _blocking(AsyncClient.result)
    wait = _blocking(AsyncClient.wait)
    download = _blocking(AsyncClient.download)
    cancel = _blocking(AsyncClient.cancel)
    logs = _blocking(AsyncClient.logs)
    retry = _blocking(AsyncClient.retry)
    jobs = _blocking(AsyncClient.jobs)
    health = _blocking(AsyncClient.health)

    def video(self, request_id: str, file: FileField = "video") -> Iterator[bytes]:
        """Yield the video of a finished job part by part; see AsyncClient.video."""
        parts = self._client.video(request_id, file)
        while part := self._run(_next(parts)):
            yield part

    def close(self) -> None:
        """Close the socket; safe to call again."""
        if not self._is_closed:
            self._run(self._client.close())
            self._is_closed = True
            self._runner.close()

    def _run(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        if self._is_closed:
            call.close()
            raise ClientError("the client is closed")
        try:
            return self._runner.run(call)
        except RuntimeError:
            call.close()  # within a running loop it never started, and Python would warn about that
            raise


def read_answer(model: type[_Model], value: Mapping[str, Any]) -> _Model:
    """Validate an answer of the server's; it may have more fields than this version knows."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(map(str, wrongs_in(error, model)))
        raise ClientError(f"the server's answer is not a valid {model.__name__}: {faults}") from error


async def _next(parts: AsyncIterator[bytes]) -> bytes:
    """Return the next part, or empty bytes after the last one; no part is empty."""
    return await anext(parts, b"")


def _rendered(answer: Answer) -> Rendered:
    frames = tuple(map(bytes, answer.attachments))
    return read_answer(Rendered, answer.result).model_copy(update={"attachments": frames})


@dataclass(slots=True)
class _Download:
    """How much of a video has arrived; its parts must follow one another and belong to one file."""

    taken_bytes: int = 0
    size_bytes: int | None = None

    @property
    def is_whole(self) -> bool:
        return self.taken_bytes == self.size_bytes

    def take(self, part: VideoPart, attachments: Sequence[Part]) -> bytes:
        """Return the bytes of the next part.

        Raises:
            ClientError: it is not the part that follows.
        """
        content = bytes(attachments[0]) if len(attachments) == 1 else b""
        if self.size_bytes not in {None, part.file_size}:
            raise ClientError(
                f"the video has changed while it was fetched: {self.size_bytes} bytes became {part.file_size}"
            )
        if part.offset != self.taken_bytes or not 0 < len(content) <= part.file_size - part.offset:
            raise ClientError(
                f"the server's answer is not the next part of the video: expected one from byte {self.taken_bytes} on, "
                f"found {len(content)} bytes from byte {part.offset} of {part.file_size}"
            )
        self.size_bytes = part.file_size
        self.taken_bytes += len(content)
        return content


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Lend a file that is synced and renamed to `path` when the block ends, or removed if the block fails.

    A symbolic link stays, and the file that it points to is replaced.
    """
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
        _sync(place.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Make a new name in a directory survive a power cut, if the directory can be opened for that."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
