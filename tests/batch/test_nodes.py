"""A batch on the nodes of a cluster; the cluster is a fake here, and tests/jobs/slots/test_ray.py has a real one."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from renderer.batch import run
from renderer.cli.batch import batch
from renderer.config import EngineSettings
from renderer.jobs.slots.base import Slot
from renderer.jobs.slots.local import LocalSlot
from renderer.jobs.slots.remote import Node, Terms
from tests.daemon_process import request, wait_until


class LateCluster:
    """Has no node until something in the log asks for one."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self.nodes: tuple[Node, ...] = ()
        self._log = log

    async def joined(self, _terms: Terms) -> "LateCluster":
        return self

    async def run(self, progress_address: str, join: Callable[[Slot], None], leave: Callable[[Slot], None]) -> None:
        await asyncio.to_thread(wait_until, lambda: "ray-node" in self._log.text, "a node is asked for")
        slot = LocalSlot(EngineSettings(), progress_address)
        join(slot)
        try:
            await asyncio.Event().wait()
        finally:
            leave(slot)


def test_a_batch_says_that_it_waits_for_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "joined", LateCluster(caplog).joined)
    monkeypatch.setattr(run, "_PATIENCE_S", 0.1)
    caplog.set_level(logging.WARNING)
    (tmp_path / "reel.json").write_text(json.dumps(request()))
    batch.main([str(tmp_path), "--out", str(tmp_path / "out"), "--slots", "ray"], standalone_mode=False)
    assert caplog.messages == [
        "no node of the cluster offers a slot; the batch waits until `stillreel ray-node` begins one"
    ]
    assert len(list((tmp_path / "out").glob("reel-*.mp4"))) == 1
