"""Chromium plays what is written: a page loads the video, seeks, draws frames and reads their colours back."""

import http.server
import json
import subprocess
import threading
from pathlib import Path

import pytest
from PIL import Image

from renderer import render

COLOURS = [(200, 30, 40), (20, 160, 60), (30, 60, 190), (128, 128, 128), (235, 220, 40)]
HOLDS = [5, 24, 1, 60, 12]
NEARLY = 16  # Chromium's canvas manages colours its own way; exact colours are another test's

PAGE = """<!doctype html><title>frames</title><script>
const frames = %s, fps = 24;
const tell = what => fetch("/told", {method: "POST", body: JSON.stringify(what)});
(async () => {
  const blob = await (await fetch("/video.mp4")).blob();
  const video = Object.assign(document.createElement("video"), {muted: true, src: URL.createObjectURL(blob)});
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(video.error.message);
  });
  const canvas = Object.assign(document.createElement("canvas"), {width: video.videoWidth, height: video.videoHeight});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const colours = [];
  for (const k of frames) {
    await new Promise(done => { video.onseeked = done; video.currentTime = (k + 0.25) / fps; });
    context.drawImage(video, 0, 0);
    colours.push([...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data.slice(0, 3)]);
  }
  await tell({duration: video.duration, size: [video.videoWidth, video.videoHeight], colours});
})().catch(error => tell({error: String(error)}));
</script>"""


def test_chromium_shows_the_right_picture_at_every_frame(tmp_path, chromium):
    images = []
    for index, (colour, hold) in enumerate(zip(COLOURS, HOLDS, strict=True)):
        Image.new("RGB", (160, 96), colour).save(tmp_path / f"{index}.png")
        images.append({"url": f"{index}.png", "frames": hold})
    result = render({"images": images, "fps": 24, "max_keyframe_interval": 1}, tmp_path / "video.mp4", base=tmp_path)
    assert result.held_pictures == "synthesised"
    shown = [index for index, hold in enumerate(HOLDS) for _ in range(hold)]
    wanted = [*range(36), 60, 89, 90, 101, 40, 3]  # forwards, far and back

    told = played(tmp_path, PAGE % json.dumps(wanted), chromium)

    assert told.get("error") is None
    assert told["duration"] == pytest.approx(sum(HOLDS) / 24, abs=1e-3)
    assert told["size"] == [160, 96]
    for k, colour in zip(wanted, told["colours"], strict=True):
        assert colour == pytest.approx(COLOURS[shown[k]], abs=NEARLY), f"frame {k}"


def played(directory: Path, page: str, chromium: str) -> dict:
    """Open the page in Chromium and return what it tells."""
    told: list[dict] = []
    is_told = threading.Event()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (directory / "video.mp4").read_bytes() if self.path == "/video.mp4" else page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4" if self.path == "/video.mp4" else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            is_told.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        quiet = ("background-networking", "component-update", "sync", "gpu", "quic", "dev-shm-usage")
        browser = subprocess.Popen(
            [
                *(chromium, "--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={directory}/profile"),
                *(f"--disable-{what}" for what in quiet),
                f"http://127.0.0.1:{site.server_port}/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert is_told.wait(60), "the page told nothing"
        finally:
            browser.kill()
            browser.wait()
            site.shutdown()
    return told[0]
