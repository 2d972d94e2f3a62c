"""A finished video becomes an object where its task says so: the last part of an attempt, where it was rendered."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from protocol.objects import parse_object
from protocol.schema import Progress
from renderer.jobs.slots.base import RenderTask
from renderer.work import RenderReport

_AGAIN_S = 1.0


class Reporter:
    """Reports progress, and can repeat the last of it while the work is another program's or a server's."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._last: Progress | None = None

    def say(self, progress: Progress) -> None:
        self._last = progress
        self._report(progress)

    @contextlib.contextmanager
    def repeating(self) -> Iterator[None]:
        """Repeat the last report once a second until the end of the block, which has a time limit of its own."""
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(_AGAIN_S):
                if self._last is not None:
                    self._report(self._last)

        thread = threading.Thread(target=repeat, name="still here", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def delivered(task: RenderTask, report: RenderReport, reporter: Reporter) -> RenderReport:
    """Put the files where their task wants them, the video last, and remove them here.

    Nothing is done if the task names no object, and nothing is put if something else has one of the names.

    Raises:
        InvalidRequest: a name is taken by something else, or the store refuses.
        OutputFailed: they could not be put now.
    """
    if task.destination is None:
        return report
    from renderer.net.objects import access_for, put_file, refuse_taken  # noqa: PLC0415 - few jobs need it

    began = time.perf_counter()
    access = access_for(task.settings.fetch, task.settings.outputs.put_timeout_s)
    files, url, made_for = report.files(task.output), task.destination.url, task.destination.made_for
    urls = [*(parse_object(image.name.after(url)) for image in report.images), parse_object(url)]
    types = [*(image.content_type for image in report.images), "video/mp4"]
    try:
        with reporter.repeating():
            if report.images:
                refuse_taken(urls, made_for, access)
            sizes = [put_file(*each, made_for, access) for each in zip(urls, files, types, strict=True)]
    finally:
        for file in files:
            file.unlink()
    took_s = round(time.perf_counter() - began, 4)
    timings = {**report.timings, "put": took_s, "total": round(report.timings["total"] + took_s, 4)}
    *of_images, size_bytes = sizes
    images = tuple(replace(image, size_bytes=size) for image, size in zip(report.images, of_images, strict=True))
    return replace(report, facts=replace(report.facts, size_bytes=size_bytes), timings=timings, images=images)
