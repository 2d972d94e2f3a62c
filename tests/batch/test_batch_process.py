"""A batch as a process: killed, stopped, deprived of its workers, beside another, and on a terminal."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from renderer.batch.places import HIDDEN
from renderer.media.mp4 import read_facts
from tests.batch.conftest import BatchProcess, StartBatch, Tree, command
from tests.daemon_process import Gate, still, wait_until

HTTP = {"FETCH__ALLOW_HTTP": 1, "FETCH__ALLOW_NETWORKS": "127.0.0.0/8"}


def with_one_that_waits(tree: Tree, gate: Gate) -> None:
    """Write manifests of which the third is rendered until the gate opens."""
    for name in ("a", "b", "d", "e"):
        tree.manifest(name)
    tree.manifest("c", still(), {"url": gate.url, "frames": 2}, width=64, height=48)


def waits_at_the_gate(tree: Tree, gate: Gate, number: int = 1) -> None:
    wait_until(lambda: gate.fetched >= number and {"a", "b"} <= set(tree.videos()), "rendering c", 30)


def runs_left(tree: Tree) -> list[Path]:
    return list((tree.out / HIDDEN).iterdir())


def all_gone(process: BatchProcess) -> None:
    wait_until(lambda: not process.processes(), "no process is left")


def test_a_killed_batch_is_taken_up_where_it_was(tree: Tree, gate: Gate, start_batch: StartBatch) -> None:
    with_one_that_waits(tree, gate)
    process = start_batch("-j", "1", **HTTP)
    waits_at_the_gate(tree, gate)
    process.child.kill()
    all_gone(process)
    assert set(tree.videos()) == {"a", "b"}
    assert len(runs_left(tree)) == 1
    gate.open()
    ended = start_batch("-j", "1", **HTTP).end()
    assert (ended.code, ended.counts()) == (0, (3, 2, 0))
    tree.check()


def test_a_batch_that_is_killed_again_and_again_comes_to_its_end(tree: Tree, start_batch: StartBatch) -> None:
    for number in range(4):
        tree.manifest(f"m{number}", *(still((number, 20 * index, 0), size=(160, 120)) for index in range(6)))
    for number in range(20):
        process = start_batch("-j", "2")
        done = len(tree.videos())
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Not always right after a video has its name: also before its sidecar, and well after.
            deadline = time.monotonic() + 30
            while len(tree.videos()) == done and process.child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.child.wait(0.008 * number)
        process.child.kill()
        all_gone(process)
        for video in tree.videos().values():
            assert read_facts(video).frames == 12
        if len(tree.videos()) == 4:
            break
    ended = start_batch("-j", "2").end()
    done, skipped, failed = ended.counts()
    assert (ended.code, done + skipped, failed) == (0, 4, 0)
    assert skipped >= 2
    tree.check()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_batch_keeps_what_is_finished(
    tree: Tree, gate: Gate, start_batch: StartBatch, signum: signal.Signals
) -> None:
    with_one_that_waits(tree, gate)
    process = start_batch("-j", "1", **HTTP)
    waits_at_the_gate(tree, gate)
    process.child.send_signal(signum)
    ended = process.end()
    assert (ended.code, ended.counts(), ended.document["stopped"]) == (130, (2, 0, 0), True)
    assert ended.stderr.splitlines()[-1].startswith("stopped: 2 done: 6 frames in ")
    all_gone(process)
    assert set(tree.videos()) == {"a", "b"}
    tree.check()
    assert list(process.temporary.iterdir()) == []


def test_a_worker_that_dies_is_replaced(tree: Tree, gate: Gate, start_batch: StartBatch) -> None:
    with_one_that_waits(tree, gate)
    process = start_batch("-j", "1", ENGINE__RETRY_PAUSE_S=0, **HTTP)
    waits_at_the_gate(tree, gate)
    [worker] = process.workers()
    worker.kill()
    waits_at_the_gate(tree, gate, 2)
    gate.open()
    ended = process.end()
    assert (ended.code, ended.counts()) == (0, (5, 0, 0))
    tree.check()


def test_a_video_whose_workers_die_fails_and_says_what_killed_them(
    tree: Tree, gate: Gate, start_batch: StartBatch
) -> None:
    with_one_that_waits(tree, gate)
    process = start_batch("-j", "1", ENGINE__RETRY_PAUSE_S=0, ENGINE__ATTEMPTS=2, **HTTP)
    for number in (1, 2):
        waits_at_the_gate(tree, gate, number)
        wait_until(lambda: len(process.workers()) == 1, "a worker")
        process.workers()[0].kill()
    ended = process.end()
    assert (ended.code, ended.counts()) == (4, (4, 0, 1))
    assert ended.failures() == {"c.json": "its worker was killed by SIGKILL (attempt 2 of 2)"}
    assert ended.document["failures"][0]["error"]["type"] == "internal_error"
    tree.check()


def test_two_batches_over_the_same_outputs_do_each_other_no_harm(tree: Tree, start_batch: StartBatch) -> None:
    for number in range(6):
        tree.manifest(f"sub{number % 2}/m{number}", *(still((number, 9 * index, 0)) for index in range(3)))
    both = [start_batch("-j", "2"), start_batch("-j", "2")]
    for ended in [process.end() for process in both]:
        assert (ended.code, ended.counts()[0] + ended.counts()[1]) == (0, 6), ended.stderr
    assert len(tree.videos()) == 6
    tree.check()


def test_wrong_usage_ends_with_2(tree: Tree, start_batch: StartBatch) -> None:
    ended = start_batch("--shard", "3/2").end()
    assert (ended.code, ended.document) == (2, {})
    assert re.fullmatch("error: --shard 3/2: expected I/N .*; found 3/2\n", ended.stderr)
    assert start_batch("--nonsense").end().code == 2


def test_a_failure_ends_with_1_and_stdout_holds_nothing_but_json(tree: Tree, start_batch: StartBatch) -> None:
    tree.manifest("a")
    tree.write("b.json", "{")
    ended = start_batch("-j", "1").end()
    assert (ended.code, ended.counts()) == (1, (1, 0, 1))


def test_a_resumed_batch_starts_no_worker(tree: Tree, start_batch: StartBatch) -> None:
    for number in range(3):
        tree.manifest(f"m{number}")
    assert "forkserver" in started_by(start_batch("-j", "1"))
    assert "forkserver" not in started_by(start_batch("-j", "1"))


def started_by(process: BatchProcess) -> str:
    """Return the command lines of all that a batch starts until its end."""
    commands: set[str] = set()
    while process.child.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.child.pid).children():
                commands.add(" ".join(child.cmdline()))
        time.sleep(0.005)
    assert process.end().code == 0
    return "\n".join(commands)


def on_a_terminal(tree: Tree, *arguments: str) -> tuple[int, bytes, bytes]:
    """Run the command with a terminal as its stderr; return its exit code, and what it wrote there and to stdout."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([*command(tree), *arguments], stdout=subprocess.PIPE, stderr=slave, env=environment) as child:
        os.close(slave)
        drawn = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and select.select([master], [], [], 30)[0]:
            try:
                drawn += os.read(master, 65536)
            except OSError:  # EIO: the child has closed its side
                break
        stdout, _ = child.communicate(timeout=30)
    os.close(master)
    return child.returncode, drawn, stdout


def test_a_table_is_drawn_on_a_terminal(tree: Tree) -> None:
    for name in ("a", "b"):
        tree.manifest(name)
    tree.write("c.json", "{")
    code, drawn, stdout = on_a_terminal(tree, "-j", "1", "--json")
    words = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", drawn).decode()
    assert (code, json.loads(stdout)["done"]) == (1, 2)
    for each in ("skipped", "frames/s", "eta", "a.json", "━", "2 done, 1 failed: 6 frames", "failed: c.json: expected"):
        assert each in words


def test_what_a_library_writes_to_stderr_stands_above_the_table(tree: Tree) -> None:
    """The encoder's name is a script; what it writes goes to the worker's own stderr, and so to the log."""
    tree.manifest("a")
    from renderer.config import EncodeSettings
    from renderer.encode.ffmpeg import find_ffmpeg

    real = find_ffmpeg(EncodeSettings())
    ffmpeg = tree.root / "ffmpeg"
    ffmpeg.write_text(f'#!/bin/sh\necho "a word from below" > /proc/$PPID/fd/2\nexec "{real}" "$@"\n')
    ffmpeg.chmod(0o755)
    settings = tree.write("settings.toml", f'[encode]\nffmpeg = "{ffmpeg}"\n')
    code, drawn, stdout = on_a_terminal(tree, "-j", "1", "--config", str(settings))
    assert (code, stdout) == (0, b"")
    words = b" ".join(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b" ", drawn).split())  # a line of the log may be wrapped
    assert b"a library says: a word from below" in words
