"""A client's machine has pydantic and pyzmq, and neither OpenCV nor PyAV."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pydantic
import pytest

from renderer.version import VERSION

ROOT = Path(__file__).parents[2]

CALL = """
import sys

REFUSED = {"cv2", "av", "numpy", "PIL", "renderer", "fastapi", "typer", "rich", "pebble", "httpcore"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
import protocol.client
with protocol.client.Client(sys.argv[1], timeout_s=60) as client:
    print(protocol.__file__, client.health().version, client.render({"images": []}, attachments=[b"png"]).frames)
assert not REFUSED & set(sys.modules)
"""


def run(*command, python=sys.executable, **changes):
    child = subprocess.run([python, *command], capture_output=True, text=True, timeout=60, check=False, **changes)
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.fixture
def server(serve, result):
    health = {"status": "ok", "version": "9.9", "workers": 1, "jobs_running": 0, "jobs_queued": 0, "encoder": "null"}
    return serve(lambda server, call: server.answer(call, health if call.method == "health" else result))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`pip install ./protocol` into an environment, from a copy so that the build leaves nothing in the tree."""
    sources, there = tmp_path_factory.mktemp("sources") / "protocol", tmp_path_factory.mktemp("there")
    shutil.copytree(ROOT / "protocol", sources, ignore=shutil.ignore_patterns("__pycache__"))
    run("-m", "venv", "--without-pip", there)
    [site_packages] = there.glob("lib/python3*/site-packages")
    (site_packages / "requirements.pth").write_text(f"{Path(pydantic.__file__).parents[1]}\n")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--disable-pip-version-check"]
    run("-m", "pip", "--python", there / "bin" / "python", "install", "--quiet", *options, sources)
    return site_packages


def test_the_client_works_without_the_renderer(server):
    where, version, frames = run("-c", CALL, server.endpoint, cwd=ROOT).split()
    assert Path(where).parent == ROOT / "protocol"
    assert (version, frames) == ("9.9", "72")


def test_the_client_installs_alone(installed, server, tmp_path):
    python = installed.parents[2] / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where, version, _ = run("-c", CALL, server.endpoint, cwd=tmp_path, env=environment, python=python).split()
    assert Path(where).parent == installed / "stillreel_client" / "protocol"
    assert version == "9.9"


def test_the_installed_files_are_the_package_and_no_more(installed):
    expected = {path.name for path in (ROOT / "protocol").iterdir() if path.suffix == ".py"} | {"py.typed"}
    package = installed / "stillreel_client" / "protocol"
    assert {path.name for path in package.iterdir()} - {"__pycache__"} == expected
    ours = {path.name.partition("-0")[0] for path in installed.iterdir()} - {"requirements.pth"}
    assert ours == {"stillreel_client", "stillreel-client.pth"}


def test_the_two_distributions_share_no_file_so_that_either_may_be_uninstalled():
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    whole, alone = (
        {entry.distribution_path for entry in WheelBuilder(str(root)).recurse_included_files()}
        for root in (ROOT, ROOT / "protocol")
    )
    assert "protocol/client.py" in whole
    assert "stillreel_client/protocol/client.py" in alone
    assert not whole & alone


def test_both_distributions_agree_on_version_and_requirements():
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    alone = tomllib.loads((ROOT / "protocol" / "pyproject.toml").read_text())["project"]
    assert alone["version"] == whole["version"] == VERSION
    assert alone["requires-python"] == whole["requires-python"]
    assert set(alone["dependencies"]) <= set(whole["dependencies"])
    assert {line.split(">")[0] for line in alone["dependencies"]} == {"pydantic", "pyzmq"}


def test_the_whole_distribution_leaves_the_second_pyproject_out():
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    names = {entry.distribution_path for entry in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"protocol/client.py", "protocol/py.typed", "renderer/errors.py"} <= names
    assert not [name for name in names if name.endswith((".toml", ".pth"))]
