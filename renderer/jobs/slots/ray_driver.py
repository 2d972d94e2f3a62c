"""The daemon's child that knows Ray: it has attempts run on the nodes of a cluster, and says which nodes there are.

Ray runs in this process and not in the daemon's: its threads, its signal handlers and its way of ending the process
when a cluster is lost have no place beside the store. It needs a node on this machine to speak to, which `stillreel
ray-node` begins.

Every attempt is one task, bound to the node whose slot is free, and is never made again by Ray itself. Neither queue
nor priorities, attempts nor time limits are Ray's: they are the daemon's.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import socket
import subprocess
import sys
from typing import Any, Final

import ray
from ray.exceptions import (
    AuthenticationError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from renderer.jobs.slots import ray_task
from renderer.jobs.slots.base import AttemptLost
from renderer.jobs.slots.remote import RESOURCES, VERSION_LABEL, Node, Nodes, Order, Peer, Refused, Said, Silent, Stop
from renderer.observe.redaction import without_directories
from renderer.processes import answer

_NODE_LOST: Final = (NodeDiedError, TaskUnschedulableError)
_LOOK_S: Final = 1.0  # between two looks at the nodes
_FORCE_S: Final = 5.0  # that an attempt gets to stop before its process is killed
_SETTLE_S: Final = 1.0  # what a dead process of Ray has begun is killed by its lifelines, one after the other
_REACH_S: Final = 5.0
_STRANGER_S: Final = 60.0
_MOST_WORDS: Final = 300

_STRANGER: Final = "import sys; from renderer.jobs.slots.ray_driver import stranger; sys.exit(stranger(sys.argv[1]))"
_REFUSED: Final = 3  # the exit code of a stranger who was not let in


def ask(address: str) -> None:
    """Ask the head of a cluster something that it answers only to processes that it lets in.

    Raises:
        AuthenticationError: it does not let this process in.
        ray.exceptions.RayError: it does not answer.
    """
    # There is no public way to ask a head something without joining its cluster.
    head = importlib.import_module("ray._raylet").GcsClient(address=address)
    head.internal_kv_keys(b"", namespace=None, timeout=_REACH_S)


def stranger(address: str) -> int:
    """Ask a head as a process without a token does, which this is; return its exit code."""
    try:
        ask(address)
    except AuthenticationError:
        return _REFUSED
    return 0


class Unusable(Exception):
    """The cluster cannot be used; the words say why."""


def look(address: str, joining: str) -> None:
    """See that a head answers at an address and lets this process in.

    Args:
        joining: what is to join its cluster, for the message.

    Raises:
        Unusable: it does not.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Unusable(
            f"no head of a cluster answers at {address} ({why}); begin one with: "
            f"stillreel ray-node --slots 0 --port {port}"
        ) from error
    try:
        ask(address)
    except AuthenticationError as error:
        words = "its token is missing here, or is another; RAY_AUTH_TOKEN or ~/.ray/auth_token has it"
        raise Unusable(f"the cluster at {address} does not let this {joining} in: {words}") from error
    except Exception as error:
        words = " ".join(str(error).split())
        raise Unusable(f"what answers at {address} is not the head of a cluster; Ray says: {words}") from error


def _connect(address: str) -> None:
    """Join the cluster.

    Raises:
        Unusable: it is not there, of another version, or open to everybody.
    """
    look(address, "daemon")
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="stillreel")
    except Exception as error:
        words = " ".join(str(error).split())
        raise Unusable(f"the cluster at {address} cannot be joined; Ray says: {words}") from error
    _refuse_if_open(address, _asked_by_stranger(address))


def _asked_by_stranger(address: str) -> int | None:
    """Try it, wherever the cluster is: Ray listens on all addresses, even if its nodes use loopback.

    Returns:
        The exit code of the stranger; None if it took too long.
    """
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    try:
        asked = answer([sys.executable, "-P", "-c", _STRANGER, address], timeout_s=_STRANGER_S, environment=environment)
    except subprocess.TimeoutExpired:
        return None
    return asked.returncode


def _refuse_if_open(address: str, code: int | None) -> None:
    """Refuse a cluster that lets a stranger in, or of which that is not known.

    Raises:
        Unusable: the words say which.
    """
    if code == _REFUSED:
        return
    if code == 0:
        raise Unusable(
            f"the cluster at {address} lets everybody in who reaches it, and runs whatever they send; begin its nodes "
            "with `stillreel ray-node`, or with RAY_AUTH_MODE=token and the same token on each"
        )
    found = "no answer" if code is None else f"exit code {code}"
    raise Unusable(
        f"whether the cluster at {address} lets strangers in could not be tried: a process without its token was to be "
        f"refused within {_STRANGER_S:g} s, found {found}; try again"
    )


def _nodes() -> list[Node]:
    """Return the nodes that offer slots. Names are made different where several nodes have the same."""
    found, names = list[Node](), set[str]()
    for each in ray.nodes():
        name = each["NodeName"] or each["NodeManagerHostname"]
        name = name if name not in names else f"{name}-{each['NodeID'][:6]}"
        for encoder, resource in RESOURCES.items():
            slots = int(each["Resources"].get(resource, 0)) if each["Alive"] else 0
            if slots:
                names.add(name)
                found.append(Node(each["NodeID"], name, encoder, slots, each["Labels"].get(VERSION_LABEL, "")))
    return found


class _Driver:
    def __init__(self, daemon: Peer) -> None:
        self._daemon = daemon
        self._attempt = ray.remote(max_retries=0, num_cpus=0, num_returns="streaming")(ray_task.attempt)
        self._under_way: dict[int, tuple[asyncio.Task[None], Any]] = {}
        self._nodes: list[Node] | None = None  # as the daemon knows them
        self._lost: set[str] = set()  # ids of nodes that attempts were lost with, which Ray may list for a while yet

    async def serve(self) -> None:
        """Follow the daemon's orders until it is gone."""
        looking = asyncio.create_task(self._look())
        with contextlib.suppress(EOFError):
            while True:
                order = await self._daemon.receive()
                if isinstance(order, Order):
                    self._begin(order)
                elif isinstance(order, Stop) and order.number in self._under_way:
                    asyncio.create_task(self._stop(*self._under_way[order.number]))  # noqa: RUF006 - it keeps itself
        looking.cancel()

    async def _look(self) -> None:
        """Say which nodes there are; Ray asks a head that is gone for a minute, and then ends this process."""
        while True:
            looking = asyncio.create_task(asyncio.to_thread(_nodes))
            await asyncio.wait([looking], timeout=_REACH_S)
            if not looking.done():
                self._fall_silent()
            try:
                self._say(await looking)
            except Exception:  # noqa: BLE001 - whatever Ray raises, the next look may succeed
                self._fall_silent()
            await asyncio.sleep(_LOOK_S)

    def _fall_silent(self) -> None:
        self._nodes = None
        self._daemon.send(Silent())

    def _say(self, nodes: list[Node]) -> None:
        """Say which nodes there are if that has changed."""
        left = [node for node in nodes if node.id not in self._lost]
        if left != self._nodes:
            self._daemon.send(Nodes(tuple(left)))
        self._nodes = left

    def _begin(self, order: Order) -> None:
        node = order.node
        items = self._attempt.options(
            resources={RESOURCES[node.encoder]: 1},
            num_gpus=_share_of_gpus(node),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(node.name, order.terms, order.task)
        following = asyncio.create_task(self._follow(order, items))
        self._under_way[order.number] = following, items

    async def _follow(self, order: Order, items: Any) -> None:
        """Pass the news of an attempt on; the last is its ending."""
        try:
            async for item in items:
                self._daemon.send(Said(order.number, await item))
        except Exception as error:  # noqa: BLE001 - the daemon waits for an ending in every case
            await asyncio.sleep(_SETTLE_S)
            if isinstance(error, _NODE_LOST):
                self._lost.add(order.node.id)
                self._say(self._nodes or [])
            self._daemon.send(Said(order.number, _lost(error, order.node.name)))
        finally:
            del self._under_way[order.number]

    async def _stop(self, following: "asyncio.Task[None]", items: Any) -> None:
        await asyncio.to_thread(ray.cancel, items)
        await asyncio.wait([following], timeout=_FORCE_S)
        if not following.done():
            await asyncio.to_thread(ray.cancel, items, force=True)


def _share_of_gpus(node: Node) -> float:
    """Return how much of a GPU a slot takes, so that Ray spreads the slots of a node over its devices."""
    if node.encoder != "nvenc":
        return 0
    gpus = next((each["Resources"].get("GPU", 0) for each in ray.nodes() if each["NodeID"] == node.id), 0)
    return min(1.0, int(10_000 * gpus / node.slots) / 10_000)  # Ray counts in ten thousandths


def _lost(error: Exception, node: str) -> AttemptLost:
    """Say in words why an attempt has no ending."""
    if isinstance(error, TaskCancelledError):
        return AttemptLost("it was stopped")
    if isinstance(error, _NODE_LOST):
        return AttemptLost(f"the node {node} was lost")
    if isinstance(error, OutOfMemoryError):
        return AttemptLost(f"the node {node} ran out of memory, and Ray has ended it")
    if isinstance(error, WorkerCrashedError):
        return AttemptLost(f"the process that ran it on the node {node} died")
    cause = error.cause if isinstance(error, RayTaskError) else error
    words = without_directories(" ".join(str(cause).split()))[:_MOST_WORDS]  # a client may read them
    return AttemptLost(f"the node {node} could not run it: {type(cause).__name__}: {words}")


async def _main(address: str) -> None:
    daemon = await Peer.parent()
    try:
        await asyncio.to_thread(_connect, address)
    except Unusable as refused:
        daemon.send(Refused(str(refused)))
        return
    await _Driver(daemon).serve()


def main() -> None:
    """Run until the daemon is gone; the only argument is the address of the cluster's head."""
    asyncio.run(_main(sys.argv[1]))
