"""cURL, as the hosted service's examples call it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon_process import request, still
from tests.served import ENDPOINT, Served

Curl = Callable[..., Any]


@pytest.fixture
def curl(require: Callable[[str, object, str], None]) -> Curl:
    """Return what runs curl and returns the answer's body, as JSON."""
    require("curl", shutil.which("curl"), "apt-get install curl")

    def run(*arguments: object, body: str = "") -> Any:
        command = ["curl", "--silent", "--show-error", "--max-time", "30", *map(str, arguments)]
        done = subprocess.run(command, input=body, capture_output=True, text=True, timeout=40, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "multipart/form-data"])
def test_the_body_is_json_whatever_the_content_type_says(served: Served, curl: Curl, content_type: str | None) -> None:
    header = ("--header", f"Content-Type: {content_type}") if content_type else ()
    url = f"{served.daemon.http}/run/{ENDPOINT}"
    made = curl("-X", "POST", url, *header, "--data-binary", "@-", body=json.dumps(request(still(frames=3))))
    assert made["frames"] == 3


def test_the_hosts_of_the_hosted_service_may_be_led_here(served: Served, curl: Curl) -> None:
    # Plain http, because the certificate is for this machine's names.
    port = served.daemon.http.rpartition(":")[2]
    here = ("--connect-to", f"::127.0.0.1:{port}")
    body = json.dumps(request())
    made = curl(*here, "-H", "Authorization: Key any", f"http://fal.run/{ENDPOINT}", "--data-binary", "@-", body=body)
    assert made["video"]["url"].startswith("http://fal.run/files/")
    queued = curl(*here, f"http://queue.fal.run/{ENDPOINT}", "--data-binary", "@-", body=body)
    assert queued["status_url"].startswith("http://queue.fal.run/fal-ai/ffmpeg-api/requests/")
    while (status := curl(*here, queued["status_url"]))["status"] != "COMPLETED":
        pass
    assert curl(*here, status["response_url"])["video"]["file_name"] == "video.mp4"
    assert curl(*here, "-X", "PUT", queued["cancel_url"]) == {"status": "ALREADY_COMPLETED"}


def test_https_is_spoken_with_the_certificate_that_keys_tls_makes(served: Served, curl: Curl) -> None:
    for name in ("localhost", "127.0.0.1"):
        url = served.daemon.https.replace("127.0.0.1", name)
        assert curl("--cacert", served.certificate, f"{url}/livez") == {"live": True}
