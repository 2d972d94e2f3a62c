"""Jobs on the nodes of a Ray cluster: nodes and daemons that are killed, clusters that cannot be used."""

import asyncio
import importlib
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest
from ray.exceptions import RayTaskError

from protocol.media import ExtractFrame, MergeAudioVideo
from renderer.cli.doctor import _cluster
from renderer.config import EngineSettings, Settings
from renderer.errors import ConfigError
from renderer.jobs.slots.base import AttemptLost, RenderTask, Slot
from renderer.jobs.slots.local import LocalSlot
from renderer.jobs.slots.ray import RayCluster, RaySlot, _usable
from renderer.jobs.slots.remote import Node, Terms
from renderer.observe.job_log import WorkerLog
from renderer.version import VERSION
from renderer.work import AnyJob, MediaJob, MediaReport, RenderReport
from tests.daemon_process import DaemonProcess, Gate, Start, picture, request, still, wait_until
from tests.jobs.factories import SETTINGS, make_work
from tests.jobs.slots.conftest import Joined, Nodes, surroundings
from tests.load import load
from tests.manifest_directory import put
from tests.media.made import made
from tests.media.sound.made import tone, wav
from tests.objects.stores import SECRET, Moto

ALPHA = Node("1", "alpha", "libx264", 1, VERSION)
pytestmark = pytest.mark.timeout(300)  # the first test here may begin the cluster


def log_of(daemon: DaemonProcess, job_id: str) -> list[str]:
    lines = (daemon.data_dir / "logs" / job_id / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


def nodes_of(daemon: DaemonProcess) -> dict[str | None, int]:
    return {each.node: each.slots for each in daemon.client.health().slots}


@pytest.mark.load
def test_each_manifest_becomes_one_video_though_a_node_is_killed(
    start: Start, nodes: Nodes, joined: Joined, gate: Gate, tmp_path: Path
) -> None:
    count, spool = load(8, 100), tmp_path / "spool"
    done, half = spool / "done", count // 2
    reels = [request(still((2 * number, 60, 20), frames=1 + number)) for number in range(count)]
    for number in (half - 2, half - 1):
        reels[number] = gate.request()
    nodes.begin("beta")
    daemon = start("--slots", f"ray://{nodes.address}", "--spool", spool, ENGINE__RETRY_PAUSE_S=0.05)
    wait_until(lambda: nodes_of(daemon) == {"alpha": 1, "beta": 1}, "both nodes have joined", 90)
    for number in range(half):
        put(spool, f"reel-{number}", reels[number])
    wait_until(lambda: gate.fetched == 2, "both nodes are in the middle of a job", 120)
    nodes.kill("beta")
    gate.open()
    for number in range(half, count):
        put(spool, f"reel-{number}", reels[number])
    wait_until(lambda: len(list(done.glob("*/result.json"))) == count, "all are done", 200)
    assert nodes_of(daemon) == {"alpha": 1}
    for number in range(count):
        with av.open(str(done / f"reel-{number}" / "video.mp4")) as video:
            frames = sum(1 for _ in video.decode(video=0))
        assert frames == (4 if reels[number] == gate.request() else 1 + number)
        assert sorted(path.name for path in (done / f"reel-{number}").iterdir()) == [
            "manifest.json",
            "result.json",
            "video.mp4",
        ]
    assert daemon.words().count("done in") == count
    (lost,) = [line for line in daemon.words().splitlines() if "attempt 1 lost" in line]
    assert "the node beta" in lost
    assert "the node beta has left" in daemon.words()
    assert daemon.stop() == 0
    wait_until(lambda: not daemon.processes(), "nothing is left of the daemon")
    wait_until(lambda: [node.name for node in joined.cluster.nodes] == ["alpha"], "Ray has noticed it as well", 90)


def test_what_a_node_has_finished_is_not_rendered_again_after_the_daemon_was_killed(
    start: Start, nodes: Nodes, joined: Joined, gate: Gate
) -> None:
    slots = ("--slots", f"ray://{nodes.address}")
    killed = start(*slots)
    killed.client.submit(gate.request(request_id="reel"))
    wait_until(lambda: gate.fetched == 1, "a node renders it", 90)
    killed.signal(signal.SIGSTOP)
    gate.open()
    output = killed.data_dir / "outputs" / "reel"
    wait_until(lambda: list(output.glob(".finished-*.json")), "the node has finished it")
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    daemon = start("--slots", "local")
    daemon.wait_for("reel", "COMPLETED")
    assert gate.fetched == 1
    assert [path.name for path in output.iterdir()] == ["video.mp4"]
    told = log_of(daemon, "reel")
    assert "an attempt begins on the node alpha" in told
    assert "attempt 1 lost: the daemon died while it ran" in told
    assert "an earlier attempt had finished on the node alpha; its video is taken" in told


def test_jobs_are_taken_up_again_and_the_cluster_joined_again_after_the_driver_was_killed(
    start: Start, nodes: Nodes, joined: Joined, gate: Gate
) -> None:
    daemon = start("--slots", f"ray://{nodes.address}")
    daemon.client.submit(gate.request(request_id="reel"))
    wait_until(lambda: gate.fetched == 1, "a node renders it", 90)
    (driver,) = [each for each in daemon.processes() if "ray_driver" in " ".join(each.cmdline())]
    driver.kill()
    wait_until(lambda: not nodes_of(daemon), "its slots are gone")
    gate.open()
    wait_until(lambda: daemon.state("reel") == "COMPLETED", "the cluster is joined again, and the job rendered", 200)
    assert daemon.client.result("reel").frames == 4
    assert "attempt 1 lost: the connection to the cluster was lost" in log_of(daemon, "reel")


def test_files_are_the_same_from_a_slot_here_and_from_one_on_a_node(joined: Joined, tmp_path: Path) -> None:
    stills = make_work(request(still((1, 2, 3), frames=40), still((200, 100, 0), frames=7), poster={"frame": 40}))
    clip, sound = str(made(tmp_path, "a.mp4")), tmp_path / "a.wav"
    sound.write_bytes(wav(tone(0.5)))
    jobs: dict[str, AnyJob] = {
        "stills": stills,
        "merged": MediaJob(MergeAudioVideo(video_url=clip, audio_url=str(sound)), any_path=True),
        "frame": MediaJob(ExtractFrame(video_url=clip, frame_type="middle"), any_path=True),
    }

    for side in ("here", "there"):
        (tmp_path / side).mkdir()

    async def make(slot: Slot, directory: Path) -> None:
        await slot.prepare()
        for name, job in jobs.items():
            report = await slot.run(RenderTask("a", job, directory / f"{name}.mp4", SETTINGS))
            assert isinstance(report, RenderReport | MediaReport), report
        await asyncio.to_thread(slot.close)

    async def make_here() -> None:
        await make(LocalSlot(EngineSettings(), str(tmp_path / "p")), tmp_path / "here")

    async def make_there() -> None:
        slot = RaySlot(joined.cluster, joined.cluster.nodes[0], str(tmp_path / "p"))
        await make(slot, tmp_path / "there")

    asyncio.run(make_here())
    joined.call(make_there())
    names = ["frame.png", "merged.mp4", "stills.mp4", "stills.poster.jpg"]
    assert sorted(file.name for file in (tmp_path / "here").iterdir()) == names
    for name in names:
        here, there = [(tmp_path / side / name).read_bytes() for side in ("here", "there")]
        assert len(here) == len(there), name
        begin = here.index(b"mdat") if name.endswith(".mp4") else 0  # before it is the time of day
        assert here[begin:] == there[begin:], name


def refusal(address: str) -> str:
    async def connect() -> None:
        await RayCluster(address, Terms(EngineSettings(), WorkerLog())).connect()

    with pytest.raises(ConfigError) as refused:
        asyncio.run(connect())
    return str(refused.value)


def test_a_daemon_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refusal("127.0.0.1:1") == "engine.slots: Ray is not installed; pip install 'stillreel[ray]'"


def test_a_head_that_does_not_answer_is_named() -> None:
    words = refusal("127.0.0.1:1")
    assert words.startswith("engine.slots: no head of a cluster answers at 127.0.0.1:1 (Connection refused)")
    assert words.endswith("begin one with: stillreel ray-node --slots 0 --port 1")


def test_another_token_than_the_clusters_is_refused_in_words(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    assert "does not let this daemon in: its token is missing here, or is another" in refusal(joined.nodes.address)


def test_a_head_that_falls_silent_and_answers_again_is_told(joined: Joined, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with joined.nodes.silent_head():
        wait_until(lambda: "the head of the cluster at" in caplog.text, "the silence is told")
        assert f"at {joined.nodes.address} does not answer" in caplog.text
    wait_until(lambda: "answers again" in caplog.text, "and its end")
    assert joined.slots


def test_a_node_with_another_version_gets_no_jobs(joined: Joined, caplog: pytest.LogCaptureFixture) -> None:
    ours = joined.cluster.nodes[0]
    older = Node("0" * 56, "older", "libx264", 1, "0.0.1")
    assert _usable((ours, older), (ours,)) == (ours,)
    assert "expected stillreel" in caplog.text
    assert "on the node older, found stillreel 0.0.1; it gets no jobs" in caplog.text


def test_doctor_tells_the_slots_of_each_node(joined: Joined) -> None:
    settings = Settings(engine=EngineSettings(slots=("local", f"ray://{joined.nodes.address}")))
    found = {each.what: each.found for each in _cluster(settings)}
    assert found == {"ray": "1 node with 1 slot in all", "node alpha": "1 slot, libx264"}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "lets everybody in who reaches it"),
        (1, "could not be tried: .* found exit code 1; try again"),
        (None, "could not be tried: .* found no answer; try again"),
    ],
)
def test_a_cluster_is_refused_that_is_open_or_might_be_and_the_words_say_which(code: int | None, words: str) -> None:
    driver = importlib.import_module("renderer.jobs.slots.ray_driver")
    with pytest.raises(driver.Unusable, match=words):
        driver._refuse_if_open("head:1", code)
    driver._refuse_if_open("head:1", driver._REFUSED)


def test_a_task_that_comes_as_its_node_leaves_spends_no_attempt(tmp_path: Path) -> None:
    slot = RaySlot(RayCluster("nowhere:1", Terms(EngineSettings(), WorkerLog())), ALPHA, "/nowhere")
    slot.leave()
    task = RenderTask("a", make_work(), tmp_path / "a.mp4", SETTINGS)
    assert asyncio.run(slot.run(task)) == AttemptLost("the node alpha has left", "drain")
    slot.close()


def test_what_a_node_says_of_a_failure_holds_no_directory_and_no_address() -> None:
    lost = importlib.import_module("renderer.jobs.slots.ray_driver")._lost
    raised = FileNotFoundError(2, "No such file or directory", "/srv/reels/worker")
    told = RayTaskError("attempt", 'Traceback:\n  File "/srv/stillreel/task.py", line 3', raised, ip="192.0.2.7")
    assert lost(told, "alpha").why == (
        "the node alpha could not run it: FileNotFoundError: [Errno 2] No such file or directory: '…/worker'"
    )
    assert lost(told.as_instanceof_cause(), "alpha") == lost(told, "alpha")


def test_a_batch_is_rendered_on_the_nodes(joined: Joined, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"reel-{number}.json").write_text(json.dumps(request(still(frames=1 + number))))
    command = [sys.executable, "-m", "renderer", "batch", tmp_path, "--out", tmp_path / "out", "--json"]
    command += ["--slots", f"ray://{joined.nodes.address}"]
    done = subprocess.run(command, env=surroundings(), check=False, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert (done.returncode, told["done"], told["failed"], told["frames"]) == (0, 3, 0, 6), done.stderr
    assert len(list((tmp_path / "out").glob("reel-*.mp4"))) == 3


def test_a_batch_is_rendered_on_the_nodes_from_a_bucket_and_into_it(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in joined.nodes.store.items():
        monkeypatch.setenv(name, value)
    store = Moto(joined.nodes.store_port)
    try:
        bucket = store.bucket()
        for number in range(2):
            bucket.put(f"in/a-{number}.ppm", picture((200, 60, 20 * number)))
            images = [{"url": f"a-{number}.ppm", "frames": 2 + number}]
            bucket.put(f"in/reel-{number}.json", json.dumps({"images": images}).encode())
        command = [
            sys.executable,
            "-m",
            "renderer",
            "batch",
            f"{bucket.url}/in",
            "--out",
            f"{bucket.url}/out",
            "--json",
        ]
        command += ["--slots", f"ray://{joined.nodes.address}"]
        done = subprocess.run(command, env=surroundings(), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["done"], told["failed"], told["frames"]) == (2, 0, 5)
        assert SECRET not in done.stdout + done.stderr
        made = bucket.names_below("out/")
        assert sorted(Path(name).suffix for name in made) == [".json", ".json", ".mp4", ".mp4"]
    finally:
        store.close()
