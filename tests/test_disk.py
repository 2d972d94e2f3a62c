"""Files that are put in place as a whole and for good: by `disk`, and by all that write through it."""

import contextlib
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from protocol.schema import RenderRequest
from renderer import disk
from renderer.batch.places import output_for
from renderer.config import FetchSettings, NvencSettings
from renderer.encode.nvenc.breaker import Breaker
from renderer.encode.nvenc.probe import _Cache
from renderer.jobs.files import Files
from renderer.pictures.fetch import Fetcher
from renderer.timeline import timeline
from renderer.work import Attachment, NvencDevice, RenderJob

Calls = list[tuple[str, set[Path]]]


def calls(work: Callable[[], object]) -> Calls:
    """Do some work; return its calls of fsync and replace in order, each with the files that were open then."""
    found: Calls = []

    def watch(_: object, event: str, called: object) -> None:
        if event == "c_call" and called in (os.fsync, os.replace):
            found.append((getattr(called, "__name__", ""), opened()))

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def opened() -> set[Path]:
    return {place.readlink() for place in Path("/proc/self/fd").iterdir() if os.path.lexists(place)}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def is_put_for_good(found: Calls, file: Path) -> bool:
    """Whether something was synced, then renamed, then the file's directory synced."""
    called = [name for name, _ in found]
    return called[-3:] == ["fsync", "replace", "fsync"] and file.parent in found[-1][1]


def test_a_file_is_on_disk_before_its_name_and_its_name_before_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a"
    assert is_put_for_good(calls(lambda: disk.put(file, b"x")), file)
    assert file.read_bytes() == b"x"
    assert file.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["a"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "a").symlink_to("other")
    disk.put(tmp_path / "a", b"x")
    assert ((tmp_path / "other").read_text(), (tmp_path / "a").is_symlink()) == ("other", False)


def test_what_does_not_fit_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    disk.put(small_disk / "a", b"old")
    with pytest.raises(OSError, match="No space left"):
        disk.put(small_disk / "a", bytes(2 << 20))
    assert (small_disk / "a").read_bytes() == b"old"
    assert names(small_disk) == ["a"]


def test_what_cannot_get_its_name_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        disk.put(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


def test_a_device_s_failure_is_still_known_where_the_disk_takes_no_newer_one(small_disk: Path) -> None:
    breaker = Breaker(small_disk, 60, lambda _: None)
    breaker.trip("GPU-1", "it failed")
    fill(small_disk)
    breaker.trip("GPU-1", "again " + "x" * 8192)
    assert "it failed" in (breaker.refusal(NvencDevice("GPU-1", "L4")) or "")
    assert names(small_disk) == ["GPU-1.failed", "filler"]


def test_what_is_known_of_devices_leaves_nothing_where_the_disk_is_full(small_disk: Path) -> None:
    cache = _Cache(NvencSettings(cache_dir=small_disk), "driver")
    fill(small_disk)
    cache.put(NvencDevice("GPU-1", "L4", "no " * 4096))
    assert names(small_disk) == ["filler"]


def test_a_batch_s_sidecar_and_a_device_s_failure_are_put_for_good(tmp_path: Path) -> None:
    output = output_for(tmp_path, Path("a"), "b")
    rendered = tmp_path / "0.part"
    rendered.write_bytes(b"video")
    assert is_put_for_good(calls(lambda: output.publish(rendered, {"video": {"file_size": 5}})), output.sidecar)
    assert output.is_finished()
    breaker = Breaker(tmp_path, 60, lambda _: None)
    assert is_put_for_good(calls(lambda: breaker.trip("GPU-1", "x")), tmp_path / "GPU-1.failed")


def test_an_attachment_that_had_to_be_copied_is_synced(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "brought").write_bytes(b"x")
    files = Files(tmp_path / "attachments" / "job")
    files.directory.parent.mkdir()
    kept = files.path_of(0)
    request = RenderRequest.model_validate({"images": [{"url": "cid:0"}]})
    work = RenderJob(request, timeline(request.images, Fraction(24)), (Attachment(kept),))
    found = calls(lambda: files.save(work, [small_disk / "brought"], Fetcher(FetchSettings())))
    assert any(kept in open_files for name, open_files in found if name == "fsync")
    assert kept.read_bytes() == b"x"


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
