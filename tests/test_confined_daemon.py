"""A daemon whose workers are confined, from outside: what jobs name is read, wherever it lies, and the store is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import RemoteError
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.jobs.slots import confinement
from tests.daemon_process import DaemonProcess, Start, picture, request, wait_until
from tests.manifest_directory import put_bundle

pytestmark = pytest.mark.skipif(confinement.refusal() is not None, reason="this kernel has no Landlock")
Confined = Callable[[bool], DaemonProcess]


@pytest.fixture
def confined(start: Start, tmp_path: Path) -> Confined:
    """Start a daemon whose data directory holds its manifest directory and lies below an allowed root.

    In place of ffmpeg it has a script that fails where the store can be read; at the first start there is no store yet.
    """
    store, ffmpeg = tmp_path / "data" / "jobs.sqlite3", tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f'#!/bin/sh\nif cat {store} > /dev/null; then exit 1; fi\nexec {find_ffmpeg(EncodeSettings())} "$@"\n'
    )
    ffmpeg.chmod(0o755)
    (tmp_path / "a.ppm").write_bytes(picture((1, 2, 3)))

    def begin(is_confined: bool) -> DaemonProcess:
        settings = {"ENCODE__FFMPEG": ffmpeg, "ENGINE__CONFINE_WORKERS": is_confined}
        return start("--allow-root", tmp_path, "--spool", tmp_path / "data" / "spool", **settings)

    return begin


def test_workers_read_what_jobs_name_and_no_store(confined: Confined, tmp_path: Path) -> None:
    daemon = confined(True)
    assert daemon.client.render(request({"url": "a.ppm", "frames": 2})).frames == 2
    (tmp_path / "later.ppm").write_bytes(picture((1, 2, 3)))
    assert daemon.client.render(request({"url": "later.ppm", "frames": 2})).frames == 2
    spool = tmp_path / "data" / "spool"
    put_bundle(spool, "b", request({"url": "b.ppm", "frames": 2}), {"b.ppm": picture((1, 2, 3))})
    wait_until((spool / "done" / "b" / "video.mp4").exists, "the manifest is done", 30)


@pytest.mark.logs_errors
def test_workers_read_the_store_where_the_settings_let_them(confined: Confined) -> None:
    with pytest.raises(RemoteError):
        confined(False).client.render(request({"url": "a.ppm", "frames": 2}))
