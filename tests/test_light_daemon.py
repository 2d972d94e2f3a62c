"""The daemon decodes nothing: libraries that do are in its workers and in children that it asks, never in itself."""

from pathlib import Path

import httpx
import psutil

from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from tests.daemon_process import Start, picture, request, wait_until
from tests.manifest_directory import put
from tests.served import RUN

_DECODERS = ("/numpy/", "/cv2/", "/av/", "/PIL/", "/pillow_heif/", "/OpenEXR", "/pyjpegxl/")


def decoders_in(process: psutil.Process) -> set[str]:
    """The decoding libraries that a process has mapped: an extension module stays so for as long as its process."""
    mapped = {entry.path for entry in process.memory_maps()}
    return {name for name in _DECODERS if any(name in path for path in mapped)}


def test_a_daemon_that_has_served_every_door_has_loaded_no_decoder(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    daemon = start("--http", "127.0.0.1:0", "--spool", spool, prefix=("env",), ENGINE__WORKERS=1)
    put(spool, "reel", request())
    with httpx.Client(base_url=daemon.http, timeout=60) as http:
        assert http.post(RUN, json=request()).status_code == 200
        assert http.post("/api/recognise", content=picture((1, 2, 3))).json()["format"] == "Netpbm"
        findings = {each["what"]: each for each in http.get("/api/doctor").json()["findings"]}
        assert findings["libx264"]["found"].startswith("rendered 3 frames")
        assert http.get("/readyz").status_code == 200
    raw = {"shape": [2, 2, 3], "dtype": "uint8"}
    sent = request({"url": "cid:0", "frames": 2}, attachments=[raw])
    assert daemon.client.render(sent, attachments=[bytes(12)]).frames == 2
    wait_until(lambda: list(spool.glob("done/reel*/video.mp4")), "the manifest's video")
    [worker] = daemon.workers()
    assert decoders_in(worker) >= {"/numpy/", "/cv2/", "/av/", "/PIL/"}
    assert decoders_in(psutil.Process(daemon.child.pid)) == set()


def test_holds_are_encoded_where_the_self_test_fails_and_results_say_so(start: Start, tmp_path: Path) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    real = find_ffmpeg(EncodeSettings())
    ffmpeg.write_text(f'#!/bin/sh\ncase "$*" in *forced-idr*) echo no IDR here >&2; exit 1;; esac\nexec {real} "$@"\n')
    ffmpeg.chmod(0o755)
    daemon = start(ENCODE__FFMPEG=ffmpeg, ENGINE__CONFINE_WORKERS=False)
    result = daemon.client.render(request())
    assert result.held_pictures == "encoded"
    assert result.held_pictures_reason is not None
    assert result.held_pictures_reason.startswith("the self-test of held pictures failed: ffmpeg ")
    assert "no IDR here" in result.held_pictures_reason
