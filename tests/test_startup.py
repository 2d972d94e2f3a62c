"""What a command imports before it does its work: nothing that only other commands need, so that it begins at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

from protocol.client import Client
from renderer.pictures.header import READERS
from tests.conftest import WriteImage
from tests.daemon_process import Start, request

# Runs a command and then names the modules that it has imported by its end, or by when it opens a file of this name.
_TELLING = """
import gc, json, os, sys
names, opened = sys.argv.pop(1), sys.argv.pop(1)
def tell():
    collections = sum(each["collections"] for each in gc.get_stats())
    with open(names, "w") as file:
        json.dump([*sys.modules, f"{collections - before} collections"], file)
def hook(event, arguments):
    if event == "open" and opened and os.fsdecode(str(arguments[0])).endswith(opened):
        tell()
        os._exit(0)
sys.addaudithook(hook)
from renderer.__main__ import main
before = sum(each["collections"] for each in gc.get_stats())
try:
    main()
finally:
    tell()
"""
_HEAVY = ("numpy", "cv2", "av", "PIL", "rich", "fastapi", "starlette", "uvicorn", "httpcore", "cryptography", "sqlite3")
_OF_A_DAEMON = (
    "renderer.jobs",
    "renderer.frontends",
    "renderer.daemon",
    "asyncio",
    "ssl",
    "zmq",
    "multiprocessing.pool",
)


def loaded(place: Path, *arguments: str | Path, opened: str = "") -> set[str]:
    """Return the modules that a command has imported by its end, or by when it opens a file of a name.

    One more name, such as "0 collections", says how often garbage was collected.
    """
    names = place / "modules.json"
    command = [sys.executable, "-c", _TELLING, names, opened, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLREEL_")}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment, cwd=place)
    return set(json.loads(names.read_text()))


def found(modules: set[str], *unwanted: str) -> set[str]:
    """Return those of the unwanted that are among the modules, be it by a module inside them."""
    return {name for name in unwanted if any(f"{module}.".startswith(f"{name}.") for module in modules)}


def test_the_version_is_told_without_the_command_line(tmp_path: Path) -> None:
    modules = loaded(tmp_path, "--version")
    assert (
        found(modules, *_HEAVY, *_OF_A_DAEMON, "click", "pydantic", "protocol", "renderer.cli", "importlib.metadata")
        == set()
    )


def test_a_status_and_a_submit_import_what_talks_to_a_daemon_alone(start: Start, tmp_path: Path) -> None:
    daemon = start()
    (tmp_path / "reel.json").write_text(json.dumps(request(request_id="reel")))
    to = ("--connect", daemon.endpoint)
    own = [each for each in _OF_A_DAEMON if each.startswith("renderer.")]
    submitted = loaded(tmp_path, "submit", "reel.json", *to)
    unwanted = ("renderer.pipeline", "renderer.pictures", "renderer.encode", "protocol.client", "importlib.metadata")
    assert found(submitted, *_HEAVY, *own, *unwanted) == set()  # pydantic imports the last with the first model
    with Client(daemon.endpoint) as client:
        client.wait("reel")  # or the status of a job that was cancelled would have an error, which is drawn
    for command in (("status", "reel"), ("status", "reel", "--json"), ("cancel", "reel")):
        asked = loaded(tmp_path, *command, *to)
        unwanted = ("pydantic", "pydantic_core", "protocol.schema", "importlib.metadata", "renderer.config")
        assert found(asked, *_HEAVY, *own, *unwanted, "renderer.manifests", "urllib.request") == set()


def test_a_render_reads_its_first_image_before_the_muxer_and_without_the_daemon(
    write_image: WriteImage, tmp_path: Path
) -> None:
    write_image("first.png")
    modules = loaded(tmp_path, "render", "first.png", "-o", "out.mp4", opened="first.png")
    unwanted = {*_HEAVY, *_OF_A_DAEMON} - {"numpy", "cv2", "PIL"}
    assert found(modules, *unwanted, "urllib.request") == set()
    assert found(modules, "numpy", "cv2", "pillow_heif", "OpenEXR") == {"numpy", "cv2"}
    readers = {f"renderer.pictures.{each}" for each in READERS.values()}
    assert found(modules, *readers) == set()  # of a PNG: it is opened before its format is known


def test_no_garbage_is_looked_for_before_the_first_image_is_read(write_image: WriteImage, tmp_path: Path) -> None:
    write_image("first.png")
    assert "0 collections" in loaded(tmp_path, "render", "first.png", "-o", "out.mp4", opened="first.png")


def test_garbage_is_collected_as_usual_once_there_is_more_than_what_was_imported() -> None:
    program = """
import gc, renderer.__main__
usual = gc.get_threshold()
renderer.__main__._collect_late()
late = gc.get_threshold()
kept = [[] for _ in range(late[0])]
print(late[0] > usual[0], gc.get_threshold() == usual, gc.callbacks)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split(maxsplit=2) == ["True", "True", "[]\n"]


def test_a_whole_render_needs_nothing_of_the_daemon(write_image: WriteImage, tmp_path: Path) -> None:
    write_image("first.png")
    modules = loaded(tmp_path, "render", "first.png", "-o", "out.mp4")
    assert (tmp_path / "out.mp4").exists()
    assert found(modules, *_OF_A_DAEMON, "rich", "fastapi", "httpcore", "cryptography", "sqlite3") == set()


def test_a_daemon_without_http_has_nothing_that_only_http_needs(tmp_path: Path) -> None:
    told = "import json, sys, renderer.daemon; json.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True, cwd=tmp_path)
    unwanted = (
        "fastapi",
        "starlette",
        "uvicorn",
        "httpcore",
        "cryptography",
        "watchfiles",
        "click",
        "rich",
        "idna",
        "prometheus_client",
    )
    assert found(set(json.loads(done.stdout)), *unwanted, "prometheus_client", "http.server") == set()
