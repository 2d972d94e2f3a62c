"""The hash in an output's name covers all that decides how the video looks, and nothing else."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protocol.schema import RenderRequest
from renderer.batch import plan as digest_module
from renderer.batch.plan import Digests
from renderer.config import EncodeSettings, FetchSettings, RequestLimits
from renderer.intake import Origin, parse_request, render_job
from renderer.pictures.fetch import Fetcher
from tests.daemon_process import wait_until

FETCH = FetchSettings(allow_http=True)
Digest = Callable[..., str]


@pytest.fixture
def digests() -> Iterator[Digests]:
    with ThreadPoolExecutor(2) as pool:
        yield Digests(pool)


@pytest.fixture
def digest(tmp_path: Path, digests: Digests) -> Digest:
    """Return a function from a request's fields to its hash; "a.png" and "b.png" are there."""
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "b.png").write_bytes(b"second")

    def of(*urls: str, base: Path = tmp_path, encode: EncodeSettings | None = None, **fields: Any) -> str:
        images = fields.pop("images", [{"url": url, "frames": 24} for url in urls or ("a.png", "b.png")])
        request = parse_request({"images": images, **fields})
        job = render_job(request, RequestLimits(), FETCH, Origin(base=base, any_path=True))
        return digests.of_job(job, Fetcher(FETCH, base=base, any_path=True), encode or EncodeSettings())

    return of


def test_the_hash_of_a_request_is_the_same_for_ever(digest: Digest) -> None:
    """If this fails, outputs of earlier versions are rendered again: raise OUTPUT_FORMAT only if they should be."""
    assert digest() == "1aa31ce7fc77"


def test_the_defaults_are_those_of_this_output_format() -> None:
    """The hash leaves them out: whoever changes one raises OUTPUT_FORMAT, and then this."""
    request = RenderRequest.model_validate({"images": [{"url": "-"}]})
    defaults = request.model_dump(
        exclude={"images", "request_id", "start_timeout", "webhook_url", "metadata", "output"}
    )
    assert digest_module.OUTPUT_FORMAT == 2
    assert defaults == {
        "fps": 24,
        "min_frames": None,
        "width": None,
        "height": None,
        "canvas": "first",
        "resize_mode": "pad",
        "scaling": "auto",
        "upscale": True,
        "background": "#000000",
        "on_error": "fail",
        "gaps": None,
        "crf": 20,
        "preset": "veryfast",
        "encoder": "auto",
        "max_keyframe_interval": 10.0,
        "timecode": None,
        "audio": (),
        "length": "stills",
        "loudness": None,
        "audio_codec": "aac",
        "audio_bitrate": 192_000,
        "poster": None,
        "contact_sheet": None,
        "sync_mode": False,
        "priority": "normal",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"fps": 25},
        {"width": 64},
        {"canvas": "largest"},
        {"resize_mode": "crop"},
        {"scaling": "nearest"},
        {"upscale": False},
        {"background": "#000001"},
        {"crf": 21},
        {"preset": "fast"},
        {"encoder": "libx264"},
        {"max_keyframe_interval": 5},
        {"timecode": "01:00:00:00"},
        {"metadata": {"a": 1}},
        {"images": [{"url": "a.png", "frames": 24}, {"url": "b.png", "frames": 23}]},
        {"images": [{"url": "b.png", "frames": 24}, {"url": "a.png", "frames": 24}]},
        {"encode": EncodeSettings(hold_pictures=False)},
        {"encode": EncodeSettings(threads=1)},
    ],
    ids=str,
)
def test_what_changes_the_video_changes_the_hash(digest: Digest, fields: dict[str, Any]) -> None:
    assert digest(**fields) != digest()


@pytest.mark.parametrize(
    "fields",
    [
        {"fps": 24.0},
        {"fps": "24/1"},
        {"crf": 20},
        {"sync_mode": True},
        {"priority": "low"},
        {"images": [{"url": "./a.png", "duration": 1}, {"url": "b.png", "frames": 24}]},
        {"encode": EncodeSettings(ffmpeg="/usr/bin/ffmpeg", stall_timeout_s=1)},
    ],
    ids=str,
)
def test_what_means_the_same_has_the_same_hash(digest: Digest, fields: dict[str, Any]) -> None:
    assert digest(**fields) == digest()


def test_the_content_counts_and_not_the_place(digest: Digest, tmp_path: Path) -> None:
    before = digest()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(moved / name)
    assert digest(base=moved) == before
    (moved / "b.png").write_bytes(b"Second")
    assert digest(base=moved) != before


def test_urls_elsewhere_count_by_their_text(digest: Digest) -> None:
    http = digest("http://example.org/a.png")
    assert http == digest("http://example.org/a.png")
    assert http != digest("http://example.org/b.png")
    assert digest("data:image/png;base64,AAAA") != digest("data:image/png;base64,AAAB")


def test_a_file_is_read_once_while_it_stays_the_same(digest: Digest, digests: Digests, tmp_path: Path) -> None:
    before = digest()
    assert len(digests._known) == 2
    state = (tmp_path / "a.png").stat()
    (tmp_path / "a.png").write_bytes(b"FIRST")
    os.utime(tmp_path / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest() == before  # what gives the file away is put back: it was not read
    os.utime(tmp_path / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert digest() != before


def test_what_is_known_of_files_does_not_grow_without_end(
    digest: Digest, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "_KNOWN_MAX", 1)
    assert digest() == digest()
    assert len(digests._known) == 1


def test_a_pool_that_is_shut_down_ends_the_reading(digests: Digests, digest: Digest) -> None:
    """A stopped batch does not wait until ten thousand images are read."""
    is_open = threading.Event()
    for _ in range(2):
        digests._pool.submit(is_open.wait, 30)
    with ThreadPoolExecutor(1) as caller:
        reading = caller.submit(digest)
        wait_until(lambda: digests._pool._work_queue.qsize() == 2, "images that wait to be read")
        digests._pool.shutdown(wait=False, cancel_futures=True)
        assert isinstance(reading.exception(10), CancelledError)
    is_open.set()
    with pytest.raises(CancelledError):
        digest()


def test_an_image_that_cannot_be_read_counts_as_such_and_is_the_renderers_to_name(
    digest: Digest, tmp_path: Path
) -> None:
    missing = digest("a.png", "late.png")
    (tmp_path / "late.png").mkdir()
    assert digest("a.png", "late.png") == missing
    (tmp_path / "late.png").rmdir()
    (tmp_path / "late.png").write_bytes(b"third")
    assert digest("a.png", "late.png") != missing


def test_a_sound_counts_by_its_bytes_and_times_and_not_by_its_name(digest: Digest, tmp_path: Path) -> None:
    for name, content in (("a.mp3", b"sound"), ("copy.mp3", b"sound"), ("b.mp3", b"other")):
        (tmp_path / name).write_bytes(content)
    one = digest(audio=[{"url": "a.mp3"}])
    assert one == digest(audio=[{"url": "copy.mp3"}])
    others = [digest(), digest(audio=[{"url": "b.mp3"}]), digest(audio=[{"url": "a.mp3", "at": 1}])]
    assert len({one, *others}) == 4
