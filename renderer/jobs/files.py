"""The files that come with a request, attachments and inline images: on disk from before it is accepted until its end.

A `data:` url becomes a file and is named `cid:N` in the job from then on. Jobs that wait therefore cost no memory, the
store stays small, and a worker is sent names and not pictures.
"""

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from renderer.disk import flush, is_full, open_private, sync
from renderer.errors import JobError, StorageFull, StoreFailed
from renderer.pictures.fetch import Fetcher
from renderer.pictures.reel import together
from renderer.work import AnyJob, Attachment, MediaJob, RenderJob

Buffer = bytes | bytearray | memoryview
Content = Buffer | Path  # a path: a file that is linked to, or copied where that is not possible


@dataclass(frozen=True, slots=True)
class Files:
    """The directory of one job's files; it is made with the first file."""

    directory: Path
    _is_unwanted: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def path_of(self, number: int) -> Path:
        """Return where attachment `number` is kept."""
        return self.directory / str(number)

    def save(self, work: AnyJob, attachments: Sequence[Content], fetcher: Fetcher) -> AnyJob:
        """Write down the files that came with the request; on return they are on disk.

        Args:
            attachments: their contents, in the order of `work.attachments`.
            fetcher: reads `data:` urls.

        Returns:
            The job with its inline images named as attachments.

        Raises:
            JobError: all images are inline and none of them can be read, or another inline file cannot be read.
            StorageFull, StoreFailed: the disk does not take it.
        """
        try:
            for attachment, content in zip(work.attachments, attachments, strict=True):
                self._write(attachment.path, content)
            work = self._save_inline(work, fetcher)
            if self.directory.exists():
                sync(self.directory)
                sync(self.directory.parent)
            return work
        except OSError as error:
            if is_full(error.errno):
                raise StorageFull("the disk is full, so the request's files could not be kept") from error
            raise StoreFailed(f"the request's files could not be kept: {error.strerror}") from error
        finally:
            if self._is_unwanted.is_set():
                self.remove()

    def remove(self) -> None:
        """Remove the files; a thread that is still saving some removes those itself when it has ended."""
        self._is_unwanted.set()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _save_inline(self, work: AnyJob, fetcher: Fetcher) -> AnyJob:
        names: dict[str, str] = {}
        faults: dict[str, JobError] = {}
        saved = list(work.attachments)
        for loc, url in work.request.urls():
            if url[:5].lower() != "data:" or url in names or url in faults:
                continue
            try:
                content = fetcher.of(str(loc[0])).fetch(url)
            except JobError as error:
                if isinstance(work, MediaJob):
                    raise error.at(*loc) from error.__cause__
                faults[url] = error
                continue
            names[url] = f"cid:{len(saved)}"
            saved.append(Attachment(self.path_of(len(saved))))
            self._write(saved[-1].path, content if isinstance(content, bytes) else content.data)
        if isinstance(work, RenderJob) and all(image.url in faults for image in work.request.images):
            places = [image.url for image in work.request.images]
            found = [(places.index(url), error) for url, error in faults.items()]
            raise together(found, is_all=True) from found[0][1].__cause__
        # What cannot be read stays in the request; the worker goes on without it, or names it with others.
        if not names:
            return work
        request: Any = work.request.renamed(names)  # of the same kind
        return replace(work, request=request, attachments=tuple(saved))

    def _write(self, path: Path, content: Content) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if isinstance(content, Path):
            link(content, path)
            return
        with open(path, "wb", opener=open_private) as file:
            file.write(content)
            flush(file)


def link(source: Path, path: Path) -> None:
    """Give a file that is on disk already a second name, which outlives the first; copy it where that is impossible."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            raise
        with source.open("rb") as content, open(path, "wb", opener=open_private) as copy:
            shutil.copyfileobj(content, copy)
            flush(copy)
