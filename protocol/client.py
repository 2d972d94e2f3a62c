"""Ask a stillreel daemon for videos: AsyncClient, and Client, the same for programs without asyncio.

Every call may be sent more than once when the server is silent or away: render and submit carry a request_id, generated
if the caller brings none, so that asking again gives the same job. So a daemon may be restarted in mid-call, drained or
killed. No other error that the server answered with is retried, even if it is `retryable`: when to come back is the
caller's choice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from protocol.attachments import Attachment, pack_request
from protocol.connection import Connection, Question
from protocol.curve import read_curve_file
from protocol.download import Download, whole_file
from protocol.errors import ClientError, ClientTimeout
from protocol.patience import Patience
from protocol.schema import (
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

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5590"
_POLL_S = 0.5
_PART_SILENCE_S = 15.0  # a part of a video is a large answer; a line of 1.2 Mbit/s brings it in this time

Request = RenderRequest | Mapping[str, Any]
OnProgress = Callable[[JobStatus], None]

_Model = TypeVar("_Model", bound=BaseModel)
_Result = TypeVar("_Result")


class AsyncClient:
    """A client for one event loop; any number of calls may wait at the same time.

    Every call raises RemoteError for an error that the server answered with, Unreachable or ClientTimeout where no
    answer came, and ClientError for one that cannot be read. The client stays usable after each of them. While a daemon
    says that it is stopping, calls wait for the next one; the RemoteError comes once patience_s has gone by.

    Args:
        endpoint: a ZeroMQ address, such as "tcp://127.0.0.1:5590" or "ipc:///run/stillreel.sock".
        curve: the file that `stillreel keys curve` has written for this client, where the daemon asks for keys. One
            that cannot be used raises BadCurveFile at once; a key that the daemon does not take ends calls with
            KeyRefused.
        timeout_s: limit of each call that does not bring its own; none by default.
        connect_timeout_s: how long to wait for the first word from a server.
        silence_s: how long a call may be without a word before it is sent again.
        patience_s: how long a call may be without a good word, repeats included, before it is given up.
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
        """Return once the video is there.

        Args:
            request: a RenderRequest, or its fields, which then only the server checks.
            attachments: what `cid:0`, `cid:1` and so on mean; they must not change until the call returns.
            progress: called about once a second, in the loop's thread. What it raises ends the call, not the job.
            timeout_s: limit of this call. The job goes on, and a request_id given by the caller finds it again.
        """
        params, frames = pack_request(request, attachments)
        limits = self._patience if timeout_s is None else replace(self._patience, timeout_s=timeout_s)
        return _rendered(await self._ask("render", params | {"progress": True}, frames, progress, limits))

    async def submit(self, request: Request, attachments: Sequence[Attachment] = ()) -> JobStatus:
        """Return as soon as the server has accepted the job; its request_id is in the answer."""
        params, frames = pack_request(request, attachments)
        return _read(JobStatus, (await self._ask("submit", params, frames)).result)

    async def status(self, request_id: str) -> JobStatus:
        """Return how far the job is; one that failed is COMPLETED and has an error."""
        return _read(JobStatus, (await self._ask("status", {"request_id": request_id})).result)

    async def result(self, request_id: str) -> Rendered:
        """Return the result of a job that is done; raise the RemoteError that a failed one ended in."""
        return _rendered(await self._ask("result", {"request_id": request_id}))

    async def wait(
        self, request_id: str, *, progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Rendered:
        """Return the result of a submitted job once it is done; see `render` for the arguments.

        A server that has answered this client before may be away for patience_s.
        """
        limit_s = self._patience.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._follow(request_id, progress)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ClientTimeout(f"{request_id} was not done within {limit_s:g} s") from error

    async def video(self, request_id: str) -> AsyncIterator[bytes]:
        """Yield the video of a job that is done, part by part, so that no more of it is in memory.

        A limit of time holds for each part. Raise the RemoteError that a failed job ended in.
        """
        download = Download()
        while not download.is_whole:
            yield await self._part(request_id, download)

    async def download(self, request_id: str, path: str | Path) -> None:
        """Fetch the video of a job that is done into a file, which is there, or replaced, once it is whole.

        Raises:
            OSError: the file cannot be written.
        """
        with whole_file(Path(path)) as file:
            async for part in self.video(request_id):
                await asyncio.to_thread(file.write, part)

    async def cancel(self, request_id: str) -> JobStatus:
        """Ask for a job to end; one that is done stays as it is."""
        return _read(JobStatus, (await self._ask("cancel", {"request_id": request_id})).result)

    async def logs(self, request_id: str) -> list[LogLine]:
        """Return the course of a job, as its log tells it to clients."""
        return list(_read(JobLog, (await self._ask("logs", {"request_id": request_id})).result).lines)

    async def retry(self, request_id: str) -> JobStatus:
        """Ask again for what a job was asked for that failed, expired or was cancelled; return the new job's status.

        The server refuses, and says why, where the pictures went with the job.
        """
        return _read(JobStatus, (await self._ask("retry", {"request_id": request_id})).result)

    async def jobs(self, states: Iterable[StateName] = (), limit: int = 100) -> list[JobStatus]:
        """Return the newest jobs that the server knows of, in order of arrival.

        Args:
            states: those in one of these states only; all if empty.
            limit: 1 to 1000.
        """
        # Defaults are not sent: a server of an earlier version takes no params here.
        query = JobsQuery(states=tuple(states), limit=limit).model_dump(mode="json", exclude_defaults=True)
        return list(_read(Jobs, (await self._ask("jobs", query)).result).jobs)

    async def health(self) -> Health:
        """Return what the server says about itself."""
        return _read(Health, (await self._ask("health", {})).result)

    async def close(self) -> None:
        """Close the socket and end the calls that still wait with a ClientError; harmless when repeated."""
        await self._connection.close()

    async def _follow(self, request_id: str, progress: OnProgress | None) -> Rendered:
        while True:
            status = _read(JobStatus, (await self._poll("status", request_id)).result)
            if progress is not None:
                progress(status)
            if status.status == "COMPLETED":
                return _rendered(await self._poll("result", request_id))
            await asyncio.sleep(_POLL_S)

    async def _part(self, request_id: str, download: Download) -> bytes:
        limits = self._patience
        connect_timeout_s = limits.patience_s if self._connection.is_heard else limits.connect_timeout_s
        limits = replace(
            limits,
            connect_timeout_s=max(connect_timeout_s, _PART_SILENCE_S),
            silence_s=max(limits.silence_s, _PART_SILENCE_S),
        )
        question = {"request_id": request_id, "offset": download.taken_bytes}
        answer = await self._ask("video", question, limits=limits)
        return download.take(_read(VideoPart, answer.result), answer.attachments)

    async def _poll(self, method: str, request_id: str) -> Answer:
        """Ask within a longer wait: as patient as one call would be, in which the server has spoken already."""
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
        watch = None if progress is None else lambda params: progress(_read(JobStatus, params))
        return await self._connection.ask(Question(method, params, attachments, watch), limits or self._patience)


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

    def render(
        self,
        request: Request,
        *,
        attachments: Sequence[Attachment] = (),
        progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Rendered:
        """Return once the video is there; see AsyncClient.render."""
        return self._run(self._client.render(request, attachments=attachments, progress=progress, timeout_s=timeout_s))

    def submit(self, request: Request, attachments: Sequence[Attachment] = ()) -> JobStatus:
        """Return as soon as the server has accepted the job."""
        return self._run(self._client.submit(request, attachments))

    def status(self, request_id: str) -> JobStatus:
        """Return how far the job is."""
        return self._run(self._client.status(request_id))

    def result(self, request_id: str) -> Rendered:
        """Return the result of a job that is done."""
        return self._run(self._client.result(request_id))

    def wait(self, request_id: str, *, progress: OnProgress | None = None, timeout_s: float | None = None) -> Rendered:
        """Return the result of a submitted job once it is done."""
        return self._run(self._client.wait(request_id, progress=progress, timeout_s=timeout_s))

    def video(self, request_id: str) -> Iterator[bytes]:
        """Yield the video of a job that is done, part by part; see AsyncClient.video."""
        parts = self._client.video(request_id)
        while part := self._run(_next(parts)):
            yield part

    def download(self, request_id: str, path: str | Path) -> None:
        """Fetch the video of a job that is done into a file; see AsyncClient.download."""
        self._run(self._client.download(request_id, path))

    def cancel(self, request_id: str) -> JobStatus:
        """Ask for a job to end."""
        return self._run(self._client.cancel(request_id))

    def logs(self, request_id: str) -> list[LogLine]:
        """Return the course of a job, as its log tells it to clients."""
        return self._run(self._client.logs(request_id))

    def retry(self, request_id: str) -> JobStatus:
        """Ask once more for what a job was asked for; see AsyncClient.retry."""
        return self._run(self._client.retry(request_id))

    def jobs(self, states: Iterable[StateName] = (), limit: int = 100) -> list[JobStatus]:
        """Return the newest jobs that the server knows of, in order of arrival; see AsyncClient.jobs."""
        return self._run(self._client.jobs(states, limit))

    def health(self) -> Health:
        """Return what the server says about itself."""
        return self._run(self._client.health())

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
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
            call.close()  # inside a running loop it never began, and would be warned about
            raise


def _read(model: type[_Model], value: Mapping[str, Any]) -> _Model:
    """Check what the server sent; it may have more fields than this version knows."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(map(str, wrongs_in(error, model)))
        raise ClientError(f"the server's answer is no {model.__name__}: {faults}") from error


async def _next(parts: AsyncIterator[bytes]) -> bytes:
    """Return the next part; nothing after the last, as none is empty."""
    return await anext(parts, b"")


def _rendered(answer: Answer) -> Rendered:
    frames = tuple(map(bytes, answer.attachments))
    return _read(Rendered, answer.result).model_copy(update={"attachments": frames})
