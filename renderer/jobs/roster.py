"""The slots on this machine and elsewhere, and the job that each of them runs."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from protocol.schema import NodeSlots
from renderer.jobs.slots.base import Elsewhere, Gone, OpenSlot, Slot

Serve = Callable[[Slot], Coroutine[Any, Any, None]]


class Roster:
    """Opens slots, has each of them served, and closes them; used on one loop.

    Attributes:
        running: the slots that are busy, by the id of the job that each has.
    """

    def __init__(
        self, open_slot: OpenSlot | None, count_here: int, elsewhere: Elsewhere | None, encoder_here: str
    ) -> None:
        """Store where the slots come from; without `open_slot` this machine has no slots."""
        self.running: dict[str, Slot] = {}
        self._open_slot = open_slot
        self._count_here = count_here if open_slot else 0
        self._elsewhere = elsewhere
        self._encoder_here = encoder_here
        self._joined: set[Slot] = set()

    @property
    def has_nodes(self) -> bool:
        """Whether other machines may offer slots."""
        return self._elsewhere is not None

    @property
    def count(self) -> int:
        """How many jobs may run at once."""
        return self._count_here + len(self._joined)

    def by_node(self) -> tuple[NodeSlots, ...]:
        """Return how many slots this machine and each node has, and how many of them are busy."""

        def place(slot: Slot) -> tuple[str, str]:
            return slot.node, slot.encoder or self._encoder_here

        slots = Counter({("", self._encoder_here): self._count_here} if self._count_here else {})
        slots.update(map(place, self._joined))
        busy = Counter(place(slot) for slot in self.running.values())
        return tuple(
            NodeSlots(node=node or None, encoder=encoder, slots=count, busy=min(count, busy[node, encoder]))
            for (node, encoder), count in slots.items()
        )

    async def run(self, progress_address: str, serve: Serve, first: Serve | None = None) -> None:
        """Serve all slots until cancelled, then close them; before that call `first` with one on this machine."""
        here = [self._open_slot(progress_address) for _ in range(self._count_here)] if self._open_slot else []
        try:
            if here and first:
                await first(here[0])
            async with asyncio.TaskGroup() as serving:
                for slot in here:
                    serving.create_task(serve(slot))
                if self._elsewhere:

                    def join(slot: Slot) -> None:
                        self._joined.add(slot)
                        serving.create_task(_until_gone(slot, serve))

                    serving.create_task(self._elsewhere.run(progress_address, join, self._leave))
        finally:
            await asyncio.shield(asyncio.gather(*(asyncio.to_thread(slot.close) for slot in here)))

    def _leave(self, slot: Slot) -> None:
        self._joined.discard(slot)


async def _until_gone(slot: Slot, serve: Serve) -> None:
    try:
        with contextlib.suppress(Gone):
            await serve(slot)
    finally:
        await asyncio.shield(asyncio.to_thread(slot.close))
