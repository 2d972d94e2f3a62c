"""A daemon as its HTTP clients see it, and clients in processes of their own."""

import json
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.daemon_process import DaemonProcess

RunPython = Callable[..., Any]

APP = "fal-ai/ffmpeg-api"
ENDPOINT = f"{APP}/images-to-video"
RUN, QUEUE = f"/run/{ENDPOINT}", f"/queue/{ENDPOINT}"
CLIENT_S = 60


@dataclass(frozen=True)
class Served:
    """A daemon and its addresses; `http` is a client of the first."""

    daemon: DaemonProcess
    certificate: Path
    http: httpx.Client

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def submit(self, body: dict[str, Any], **options: Any) -> dict[str, Any]:
        response = self.http.post(QUEUE, json=body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def status(self, request_id: str, **params: Any) -> httpx.Response:
        return self.http.get(f"/queue/{APP}/requests/{request_id}/status", params=params)

    def result(self, request_id: str) -> httpx.Response:
        return self.http.get(f"/queue/{APP}/requests/{request_id}")

    def cancel(self, request_id: str) -> httpx.Response:
        return self.http.put(f"/queue/{APP}/requests/{request_id}/cancel")


def printed(command: list[str], environment: dict[str, str]) -> Any:
    """Run a client to its end, which must come by itself, and return the last line that it prints."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CLIENT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
