"""A daemon and its client on two machines, as far as the network goes: two network namespaces with a cable between."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.curve_keys import curve_file
from tests.daemon_process import START_S

HERE, THERE = "10.99.73.1", "10.99.73.2"
ASK = """
import sys
from protocol.client import Client
picture = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"
with Client(sys.argv[1], curve=sys.argv[2] or None, timeout_s=60, connect_timeout_s=20) as client:
    made = client.render({"images": [{"url": picture, "frames": 3}], "sync_mode": True})
    print(made.frames, made.attachments[0][4:8].decode())
"""


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def machines(require: Callable[[str, object, str], None]) -> Iterator[tuple[str, str]]:
    """The names of two namespaces that reach each other under HERE and THERE."""
    require("netns", shutil.which("ip"), "apt-get install iproute2")
    mark = uuid.uuid4().hex[:6]
    names = (f"sr-a-{mark}", f"sr-b-{mark}")
    ends = (f"sra{mark}", f"srb{mark}")
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.callback(ip, "netns", "delete", name)
        is_made = all(ip("netns", "add", name) for name in names)
        is_made = is_made and ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1])
        is_made = is_made and ip("link", "set", ends[1], "netns", names[1])
        if is_made:
            for name, end, address in zip(names, ends, (HERE, THERE), strict=True):
                is_made = is_made and ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                is_made = is_made and all(ip("-n", name, "link", "set", device, "up") for device in ("lo", end))
        elif ends:
            ip("link", "delete", ends[1])
        require("netns", is_made, "making network namespaces takes root")
        yield names


def test_a_client_on_another_machine_gets_its_video_with_its_key_alone(
    machines: tuple[str, str], tmp_path: Path
) -> None:
    key = curve_file(tmp_path / "data", "there")
    serve = [
        sys.executable,
        "-m",
        "renderer",
        "serve",
        "--bind",
        f"tcp://{HERE}:5590",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    endpoint = f"tcp://{HERE}:5590"
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(
            ["ip", "netns", "exec", machines[0], *serve], stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ
        )
    try:
        assert daemon.stdout is not None
        assert f" ready on {endpoint}" in daemon.stdout.readline(), (tmp_path / "log").read_text()

        def ask(curve: str) -> subprocess.CompletedProcess[str]:
            command = ["ip", "netns", "exec", machines[1], sys.executable, "-c", ASK, endpoint, curve]
            return subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)

        made = ask(str(key))
        assert (made.returncode, made.stdout.split()) == (0, ["3", "ftyp"]), made.stderr
        assert "KeyRefused" in ask("").stderr
        assert re.search(f"refused ({THERE}|somebody): it has no CURVE key", (tmp_path / "log").read_text())
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0
        if daemon.stdout is not None:
            daemon.stdout.close()
