"""What Ray runs on a node: an attempt, which a child of this process makes (host.py), and whose news go back.

Ray keeps a process for the next task of the same kind, and so its child is kept as well, unless its attempt was
stopped, or the devices of the next task are others.
"""

import os
import select
import sys
from collections.abc import Iterator
from typing import Final

from protocol.schema import Progress
from renderer.jobs.slots.base import AttemptLost, RenderTask
from renderer.jobs.slots.remote import Alive, News, Terms, read, write
from renderer.processes import Child

_HOST: Final = "from renderer.jobs.slots.host import main; main()"
_LOOK_S: Final = 0.1  # Ray interrupts a task between two instructions of Python, not in a system call


class _Host:
    """The child that renders."""

    def __init__(self, node: str, terms: Terms) -> None:
        self.key = _key(node, terms)
        self.is_there = True
        self._child = Child([sys.executable, "-P", "-c", _HOST], stderr=2)
        assert self._child.stdin is not None  # noqa: S101 - they are pipes
        assert self._child.stdout is not None  # noqa: S101 - as above
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        write(self._stdin, (node, terms))

    def run(self, task: RenderTask) -> Iterator[News]:
        """Yield the news of an attempt, the ending last. A child whose attempt is left before that is killed."""
        is_over = False
        try:
            write(self._stdin, task)
            while not is_over:
                if select.select([self._stdout], [], [], _LOOK_S)[0]:
                    news = read(self._stdout)
                    is_over = not isinstance(news, Alive | Progress)
                    yield news
        except (EOFError, OSError):
            yield AttemptLost("the process that has its worker died")
        finally:
            if not is_over:
                self.end()

    def end(self) -> None:
        """Kill the child with all that it has begun, and wait for it."""
        self.is_there = False
        self._child.end()
        self._child.wait()


_host: _Host | None = None


def _key(node: str, terms: Terms) -> tuple[str, Terms, str | None]:
    return node, terms, os.environ.get("CUDA_VISIBLE_DEVICES")


def attempt(node: str, terms: Terms, task: RenderTask) -> Iterator[News]:
    """Run one attempt; yield its news from the moment on at which it is under way, and its ending last."""
    global _host  # noqa: PLW0603 - one process, one child
    yield Alive()
    if _host and _host.key != _key(node, terms):
        _host.end()
    if _host is None or not _host.is_there:
        _host = _Host(node, terms)
    yield from _host.run(task)
