"""Chromium plays what is written: a page loads the video, seeks, draws frames and reads their colours back."""

import http.server
import json
import os
import signal
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from renderer import render
from tests.load import IS_FULL, load
from tests.media.sound.made import RATE, clicks, wav

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
            start_new_session=True,
        )
        try:
            assert is_told.wait(60), "the page told nothing"
        finally:
            os.killpg(browser.pid, signal.SIGKILL)  # Debian's command is a script, which would die alone
            browser.wait()
            site.shutdown()
    return told[0]


LISTENING = """<!doctype html><title>clicks</title><script>
const places = %s;
const tell = what => fetch("/told", {method: "POST", body: JSON.stringify(what)});
(async () => {
  const bytes = await (await fetch("/video.mp4")).arrayBuffer();
  const sound = await new OfflineAudioContext(1, 48000, 48000).decodeAudioData(bytes);
  const samples = sound.getChannelData(0);
  const found = places.map(place => {
    let loudest = Math.max(0, place - 3000);
    for (let k = loudest; k < Math.min(samples.length, place + 3000); k += 1) {
      if (Math.abs(samples[k]) > Math.abs(samples[loudest])) { loudest = k; }
    }
    return loudest;
  });
  await tell({rate: sound.sampleRate, length: sound.length, found});
})().catch(error => tell({error: String(error)}));
</script>"""


@pytest.mark.load
@pytest.mark.parametrize("fps", [Fraction(30000, 1001), *([Fraction(24), Fraction(60)] if IS_FULL else [])], ids=str)
def test_chromium_hears_a_click_at_the_first_frame_of_each_still(tmp_path, chromium, fps):
    """Over a minute by default, and over ten minutes in full."""
    hold, stills = round(fps * 5) - 1, load(12, 121)
    places = [round(number * hold / fps * RATE) for number in range(stills)]
    (tmp_path / "clicks.wav").write_bytes(wav(clicks(stills * hold / fps, places)))
    Image.new("RGB", (64, 48), (9, 99, 199)).save(tmp_path / "still.png")
    images = [{"url": "still.png", "frames": hold}] * stills
    request = {"images": images, "fps": str(fps), "audio": [{"url": "clicks.wav"}]}
    render(request, tmp_path / "video.mp4", base=tmp_path)

    told = played(tmp_path, LISTENING % json.dumps(places), chromium)

    assert told.get("error") is None
    assert told["rate"] == RATE
    assert [abs(found - place) <= 1 for found, place in zip(told["found"], places, strict=True)] == [True] * stills
