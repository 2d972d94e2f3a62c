"""A daemon that speaks HTTP and HTTPS, and what runs the hosted service's own clients against it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from renderer.frontends.http.tls import make_pair
from tests.daemon_process import Gate, starting
from tests.served import ENDPOINT, RunPython, Served, printed

REWRITING = 'fal.config({ credentials: "any", requestMiddleware: async (r) => ({ ...r, url: there(r.url) }) });'


@pytest.fixture(scope="session")
def tls_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tls_pair: tuple[Path, Path]) -> Iterator[Served]:
    """A daemon with one worker, for all tests of a module."""
    certificate, key = tls_pair
    listening = ("--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key)
    with starting(tmp_path_factory.mktemp("served")) as start:
        daemon = start(*listening, "--allow-network", "127.0.0.0/8", ENGINE__WORKERS=1)
        with httpx.Client(base_url=daemon.http, timeout=30) as client:
            yield Served(daemon, certificate, client)


@pytest.fixture
def busy(served: Served, gate: Gate) -> Iterator[str]:
    """The id of a job that keeps the only worker until the test ends."""
    request_id = served.submit(gate.request())["request_id"]
    served.daemon.wait_for(request_id)
    yield request_id
    served.cancel(request_id)
    gate.open()


@pytest.fixture
def fal(served: Served) -> RunPython:
    """Return what runs a script with the official Python client and returns what it prints, as JSON."""

    def run(script: str, **values: Any) -> Any:
        host = served.daemon.https.removeprefix("https://")
        environment = {
            **os.environ,
            "FAL_KEY": "any",
            "SSL_CERT_FILE": str(served.certificate),
            "FAL_RUN_HOST": f"{host}/run",
            "FAL_QUEUE_RUN_HOST": f"{host}/queue",
            "VALUES": json.dumps({"app": ENDPOINT, "host": served.daemon.https, **values}),
        }
        opening = "import asyncio, json, os, time, fal_client\nv = json.loads(os.environ['VALUES'])\n"
        return printed([sys.executable, "-c", opening + textwrap.dedent(script)], environment)

    return run


@pytest.fixture(scope="session")
def fal_js(require: Callable[[str, object, str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which @fal-ai/client is installed."""
    require("node", shutil.which("node") and shutil.which("npm"), "apt-get install nodejs npm")
    place = tmp_path_factory.getbasetemp().parent / "fal-js"
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", place, "@fal-ai/client@1.10.1"]
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another of pytest's processes may want it at the same time
        if not (place / "node_modules/@fal-ai/client/package.json").exists():
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=90, check=False)
            require("node", done.returncode == 0, f"npm install @fal-ai/client: {done.stderr[-300:]}")
    return place


@pytest.fixture
def node(served: Served, fal_js: Path, tmp_path: Path) -> RunPython:
    """Return what runs a script with the official JavaScript client and returns what it prints, as JSON."""

    def run(script: str, config: str = REWRITING, **values: Any) -> Any:
        opening = f"""
            import {{ createRequire }} from "node:module";
            const require = createRequire("{fal_js}/");
            const {{ fal }} = require("@fal-ai/client");
            const v = JSON.parse(process.env.VALUES);
            const there = (url) => url
              .replace("https://queue.fal.run/", v.host + "/queue/")
              .replace("https://fal.run/", v.host + "/run/")
              .replace("https://rest.fal.ai/", v.host + "/");
            const print = (value) => console.log(JSON.stringify(value));
            {config}
        """
        file = tmp_path / "script.mjs"
        file.write_text(textwrap.dedent(opening) + textwrap.dedent(script))
        environment = {**os.environ, "VALUES": json.dumps({"app": ENDPOINT, "host": served.daemon.http, **values})}
        return printed(["node", str(file)], environment)

    return run
