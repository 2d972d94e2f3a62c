"""Slots on the nodes of a Ray cluster, as the daemon sees them; Ray itself is in a child process (ray_driver.py).

A node offers as many slots as it says, and all are there as long as the node is. If the child dies, or the cluster
with it, all slots are gone, their attempts are lost, and another child is begun until the cluster is there again.

An attempt's time limits hold on its node. They hold here again, with some grace, for a node that has stopped answering
and is not yet known to be dead. Until an attempt is under way it may wait in Ray for another daemon's to end.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from protocol.errors import counted
from protocol.schema import Fault, Progress
from renderer.config import EncodeSettings
from renderer.errors import ConfigError, JobTimedOut
from renderer.jobs.slots.base import AttemptLost, Ending, Gone, RenderTask, Slot
from renderer.jobs.slots.progress import ProgressSender
from renderer.jobs.slots.remote import Alive, News, Node, Nodes, Order, Peer, Refused, Said, Silent, Stop, Terms
from renderer.processes import Child

log = logging.getLogger(__name__)

_DRIVER: Final = "from renderer.jobs.slots.ray_driver import main; main()"
_HEAD: Final = "127.0.0.1:6379"
_CONNECT_S: Final = 90.0
_PAUSE_S: Final = 5.0  # between two tries to join a cluster again
_LOOK_S: Final = 5.0
_GRACE_S: Final = 60.0  # a node that died is known to be dead after 50 s at most
_STOP_S: Final = 15.0  # that a node gets to stop an attempt; three times what the driver gives it
_LAST_WORDS: Final = 300


async def joined(terms: Terms) -> "RayCluster | None":
    """Return the cluster that the settings name, joined; None if they name none.

    Raises:
        ConfigError: it cannot be used; the words say why.
    """
    clusters = {word for word in terms.engine.slots if word != "local"}
    if not clusters:
        return None
    if len(clusters) > 1:
        raise ConfigError(f"engine.slots: expected one cluster at most, found {', '.join(sorted(clusters))}")
    cluster = RayCluster(clusters.pop().removeprefix("ray").removeprefix("://") or _HEAD, terms)
    await cluster.connect()
    return cluster


class RayCluster:
    """The slots of one cluster: `connect()`, then `run()`, on one loop."""

    def __init__(self, address: str, terms: Terms) -> None:
        self.address = address
        self.nodes: tuple[Node, ...] = ()
        self.terms = terms
        self._numbers = itertools.count()
        self._is_silent = False
        self._driver: Peer | None = None
        self._child: Child | None = None
        self._words: IO[bytes] | None = None
        self._attempts: dict[int, Callable[[News], None]] = {}

    async def connect(self) -> None:
        """Join the cluster.

        Raises:
            ConfigError: it cannot be used; the words say why.
        """
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("engine.slots: Ray is not installed; pip install 'stillreel[ray]'")
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._child = child = Child(
            [sys.executable, "-P", "-c", _DRIVER, self.address], stderr=self._words, environment=_with_token()
        )
        assert child.stdin is not None  # noqa: S101 - they are pipes
        assert child.stdout is not None  # noqa: S101 - as above
        driver = await Peer.over(child.stdout, child.stdin)
        try:
            async with asyncio.timeout(_CONNECT_S):
                first = await driver.receive()
        except TimeoutError:
            first = Refused(f"the cluster at {self.address} does not answer within {_CONNECT_S:g} s")
        except EOFError:
            first = Refused(f"the process that was to join the cluster at {self.address} ended: {self._last_words()}")
        if isinstance(first, Nodes):
            refusals = [node.refusal for node in first.nodes if node.refusal]
            if refusals and len(refusals) == len(first.nodes):
                first = Refused(refusals[0])
        if isinstance(first, Refused):
            await self.leave()
            raise ConfigError(f"engine.slots: {first.words}")
        self._driver, self.nodes = driver, first.nodes

    async def leave(self) -> None:
        """End the driver; Ray ends what still runs for it then."""
        for number in list(self._attempts):
            self._tell(number, AttemptLost("the connection to the cluster was lost", "daemon"))
        if self._driver:
            self._driver.close()
            self._driver = None
        if self._child:
            child, self._child = self._child, None
            child.end()
            await asyncio.to_thread(child.wait)
        if self._words:
            self._words.close()

    async def run(self, progress_address: str, join: Callable[[Slot], None], leave: Callable[[Slot], None]) -> None:
        """Offer the slots of the nodes that are there, until cancelled."""
        slots: dict[tuple[str, int], RaySlot] = {}

        def change(nodes: tuple[Node, ...]) -> None:
            self.nodes = _usable(nodes, self.nodes)
            wanted = {(node.id, index): node for node in self.nodes for index in range(node.slots)}
            for key in slots.keys() - wanted.keys():
                slots[key].leave()
                leave(slots.pop(key))
            for key in wanted.keys() - slots.keys():
                slots[key] = RaySlot(self, wanted[key], progress_address)
                join(slots[key])

        try:
            nodes = self.nodes
            while True:
                if self._driver is None:
                    nodes = await self._connected_again()
                self.nodes = ()
                change(nodes)
                with contextlib.suppress(EOFError):
                    await self._listen(change, lambda: False)
                words = "the cluster at %s is lost: %s"
                log.error(words, self.address, self._last_words(), extra={"action": "cluster_lost"})
                await self.leave()
                change(())
        finally:
            with contextlib.suppress(EOFError, TimeoutError):
                async with asyncio.timeout(_STOP_S):  # attempts were asked to stop, and how they end still counts
                    await self._listen(lambda _: None, lambda: not self._attempts)
            await self.leave()

    async def _listen(self, change: Callable[[tuple[Node, ...]], None], is_enough: Callable[[], bool]) -> None:
        """Follow the driver.

        Raises:
            EOFError: it is gone.
        """
        while not is_enough() and self._driver is not None:
            heard = await self._driver.receive()
            if isinstance(heard, Nodes):
                if self._is_silent:
                    log.info("the head of the cluster at %s answers again", self.address, extra={"action": "cluster"})
                self._is_silent = False
                change(heard.nodes)
            elif isinstance(heard, Silent) and not self._is_silent:
                self._is_silent = True
                words = "the head of the cluster at %s does not answer; what runs on its nodes goes on for a minute"
                log.warning(words, self.address, extra={"action": "cluster_silent"})
            elif isinstance(heard, Said) and heard.number in self._attempts:
                self._tell(heard.number, heard.news)

    def _tell(self, number: int, news: News) -> None:
        hear = self._attempts[number]
        if not isinstance(news, Alive | Progress):
            del self._attempts[number]
        hear(news)

    async def _connected_again(self) -> tuple[Node, ...]:
        self._is_silent, said = False, ""
        while True:
            await asyncio.sleep(_PAUSE_S)
            try:
                await self.connect()
            except ConfigError as error:
                if str(error) != said:
                    log.warning("%s; it is tried again", error, extra={"action": "cluster_away"})
                said = str(error)
            else:
                log.info("the cluster at %s is there again", self.address, extra={"action": "cluster"})
                return self.nodes

    def _last_words(self) -> str:
        if self._words is None:
            return "nothing was said"
        self._words.seek(0)
        return " ".join(self._words.read().decode(errors="replace").split())[-_LAST_WORDS:] or "nothing was said"

    def begin(self, node: Node, task: RenderTask, hear: Callable[[News], None]) -> int:
        """Begin an attempt, whose news go to a function, the ending last; return its number."""
        number = next(self._numbers)
        if self._driver is None:
            hear(AttemptLost("the connection to the cluster was lost", "daemon"))
            return number
        self._attempts[number] = hear
        self._driver.send(Order(number, node, self.terms, task))
        return number

    def stop(self, number: int) -> None:
        """Have an attempt end at once."""
        if self._driver is not None:
            self._driver.send(Stop(number))


def _with_token() -> dict[str, str]:
    """Return an environment that makes Ray use its token if there is one, which it does not do by default."""
    has_token = os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").exists()
    mode = "token" if has_token or os.environ.get("RAY_AUTH_TOKEN_PATH") else "disabled"
    return {"RAY_AUTH_MODE": mode, **os.environ}


def _usable(nodes: tuple[Node, ...], known: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes that run this version; the log tells which came and went."""
    usable = tuple(node for node in nodes if not node.refusal)
    for node in nodes:
        if node.refusal:
            log.warning("%s; it gets no jobs", node.refusal, extra={"action": "node_refused"})
        elif node not in known:
            extra = {"action": "node_joined", "node": node.name}
            slots = counted(node.slots, "slot")
            log.info("the node %s joins with %s, encoder %s", node.name, slots, node.encoder, extra=extra)
    for node in known:
        if node not in usable:
            log.warning("the node %s has left", node.name, extra={"action": "node_left", "node": node.name})
    return usable


class _Attempt:
    """What is known of an attempt that runs.

    Attributes:
        number: the driver knows it by that.
        ending: done once it is known how it has ended.
        is_over: the same for those who wait on another thread.
        verdict: how it is to end instead; None unless it was stopped.
    """

    def __init__(self, task: RenderTask) -> None:
        self.number = -1
        self.job_id = task.job_id
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.is_over = threading.Event()
        self.verdict: Ending | None = None
        self.begun_at: float | None = None
        self.heard_at = 0.0

    def end(self, ending: Ending) -> None:
        self.is_over.set()
        if not self.ending.done():
            self.ending.set_result(ending)


class RaySlot:
    """One place on a node."""

    def __init__(self, cluster: RayCluster, node: Node, progress_address: str) -> None:
        self._cluster = cluster
        self._node = node
        self._report_progress = ProgressSender(progress_address)
        self._attempt: _Attempt | None = None
        self._has_left = asyncio.Event()

    @property
    def node(self) -> str:
        return self._node.name

    @property
    def encoder(self) -> str | None:
        return self._node.encoder

    async def prepare(self) -> None:
        """See that the node is there: Ray begins a process on it with the first task, and keeps it.

        Raises:
            Gone: it is not.
        """
        if self._has_left.is_set():
            raise Gone

    async def lost(self) -> None:
        """Return once the node has left."""
        await self._has_left.wait()

    def leave(self) -> None:
        """Note that the node has left."""
        self._has_left.set()

    async def held_pictures_refusal(self, settings: EncodeSettings) -> str | None:  # noqa: ARG002 - as the seam has it
        """Return None: every node tries that for itself, and codes holds frame by frame where it fails."""
        return None

    async def run(self, task: RenderTask) -> Ending:
        """Run one attempt to its end; where the node has left as the task came, none of its attempts is spent."""
        if self._has_left.is_set():
            return AttemptLost(f"the node {self.node} has left", "drain")
        attempt = self._attempt = _Attempt(task)
        attempt.number = self._cluster.begin(self._node, task, lambda news: self._hear(attempt, news))
        try:
            while not attempt.ending.done():
                await asyncio.wait([attempt.ending], timeout=_LOOK_S)
                if fault := self._past_limits(attempt):
                    self.stop(fault)
            return attempt.verdict or attempt.ending.result()
        except asyncio.CancelledError:
            self.stop(AttemptLost("the daemon stopped", "drain"))
            raise

    def _hear(self, attempt: _Attempt, news: News) -> None:
        attempt.heard_at = time.monotonic()
        if attempt.begun_at is None and isinstance(news, Alive):
            attempt.begun_at = attempt.heard_at
            extra = {"job": attempt.job_id, "action": "begun", "node": self.node}
            log.info("an attempt begins on the node %s", self.node, extra=extra)
        if isinstance(news, Progress):
            self._report_progress(attempt.job_id, news)
        elif not isinstance(news, Alive):
            attempt.end(news)

    def _past_limits(self, attempt: _Attempt) -> Fault | None:
        if attempt.begun_at is None:
            return None
        now, limits = time.monotonic(), self._cluster.terms.engine
        if now - attempt.begun_at > limits.job_timeout_s + _GRACE_S:
            return JobTimedOut(f"the job took longer than {limits.job_timeout_s:g} s").fault()
        if now - attempt.heard_at > limits.progress_timeout_s + _GRACE_S:
            return JobTimedOut(f"the job made no progress for {limits.progress_timeout_s:g} s").fault()
        return None

    def heard(self) -> None:
        """Do nothing: the node watches the progress itself."""

    def stop(self, verdict: Ending) -> None:
        """End the attempt that runs; a node that does not answer in time is left to itself."""
        attempt = self._attempt
        if attempt is None or attempt.ending.done() or attempt.verdict is not None:
            return
        attempt.verdict = verdict
        self._cluster.stop(attempt.number)
        asyncio.get_running_loop().call_later(_STOP_S, attempt.end, AttemptLost("its node does not answer"))

    def close(self) -> None:
        """Wait until nothing runs there."""
        if self._attempt is not None:
            self._attempt.is_over.wait(_STOP_S)
        self._report_progress.close()
