"""`stillreel batch` from buckets and to buckets, at a real server, in processes of their own."""

import io
import json
import os
import re
import subprocess
import wave
from pathlib import Path
from typing import Any

import av
import pytest

from tests import warm
from tests.cli_process import run
from tests.daemon_process import picture
from tests.objects.stores import KEY, SECRET, Bucket, HeldLine, Moto

_HASH = re.compile(r"-[0-9a-f]{12}\.")


def manifest(*names: str, **fields: Any) -> bytes:
    images = [{"url": name, "frames": 2} for name in names]
    return json.dumps({"images": images, "width": 64, "height": 48, **fields}).encode()


def silence() -> bytes:
    with io.BytesIO() as file:
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 48000, 0, "NONE", ""))
            sound.writeframes(bytes(9600))
        return file.getvalue()


@pytest.fixture
def reels(bucket: Bucket) -> Bucket:
    """A bucket with two manifests and their sources, one of them shared."""
    bucket.put("in/a.json", manifest("a.ppm", "./shared/b.ppm", audio=[{"url": "a.wav"}]))
    bucket.put("in/a.wav", silence())
    bucket.put("in/sub/c.csv", b"url,frames\n../shared/b.ppm,3\n")
    bucket.put("in/a.ppm", picture((200, 60, 20)))
    bucket.put("in/shared/b.ppm", picture((20, 60, 200)))
    for name in ("in/.hidden.json", "in/@eaDir/d.json", "inner.json"):
        bucket.put(name, manifest("a.ppm"))
    return bucket


def batch(*arguments: str | Path, cwd: Path, code: int = 0) -> dict[str, Any]:
    """Run it to its end, and return what it prints."""
    ended = run("batch", *arguments, "-j", "1", "--json", cwd=cwd)
    assert ended.returncode == code, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert KEY not in ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def counts(told: dict[str, Any]) -> tuple[int, int, int]:
    return told["done"], told["skipped"], told["failed"]


def named(names: list[str]) -> list[str]:
    """Names of outputs, without the hashes."""
    return sorted(_HASH.sub(".", name) for name in names)


def frames_in(video: bytes) -> int:
    with av.open(io.BytesIO(video)) as opened:
        return sum(1 for _ in opened.decode(video=0))


def test_manifests_of_a_bucket_become_videos_in_a_bucket(reels: Bucket, tmp_path: Path) -> None:
    ends = (f"{reels.url}/in/", "--out", f"{reels.url}/in/out")
    assert counts(batch(*ends, cwd=tmp_path)) == (2, 0, 0)
    made = reels.names_below("in/out/")
    assert named(made) == [f"in/out/{name}" for name in ("a.json", "a.mp4", "sub/c.json", "sub/c.mp4")]
    for name in made:
        if name.endswith(".mp4"):
            told = json.loads(reels.get(name.replace(".mp4", ".json")))
            assert told["video"]["url"] == f"{reels.url}/{name}"
            assert told["video"]["file_size"] == len(reels.get(name))
            assert told["frames"] == frames_in(reels.get(name)) == (3 if "sub" in name else 4)
            assert bool(told["audio"]) is ("sub" not in name)
    assert counts(batch(*ends, cwd=tmp_path)) == (0, 2, 0)
    reels.put("in/a.ppm", picture((9, 9, 9)))
    assert counts(batch(*ends, cwd=tmp_path)) == (1, 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_and_a_directory_may_be_mixed(reels: Bucket, tmp_path: Path) -> None:
    assert counts(batch(f"{reels.url}/in", "--out", "videos", cwd=tmp_path)) == (2, 0, 0)
    made = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "videos").rglob("*.*")]
    assert named(made) == [f"videos/{name}" for name in ("a.json", "a.mp4", "sub/c.json", "sub/c.mp4")]
    local = tmp_path / "manifests"
    local.mkdir()
    (local / "a.ppm").write_bytes(picture((200, 60, 20)))
    (local / "a.json").write_bytes(manifest("a.ppm", f"{reels.url}/in/shared/b.ppm"))
    for expected in ((1, 0, 0), (0, 1, 0)):
        assert counts(batch(local, "--out", reels.url, cwd=tmp_path)) == expected
    assert named([name for name in reels.names() if _HASH.search(name)]) == ["a.json", "a.mp4"]


def test_a_name_that_no_object_can_have_fails_its_own_manifest(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(picture((200, 60, 20)))
    for name in ("what?.json", "fine.json"):
        (tmp_path / name).write_bytes(manifest("a.ppm"))
    told = batch(".", "--out", bucket.url, cwd=tmp_path, code=1)
    assert counts(told) == (1, 0, 1)
    assert "no object can have the manifest's name" in told["failures"][0]["error"]["message"]


def test_shards_of_a_bucket_make_each_video_once(reels: Bucket, tmp_path: Path) -> None:
    done = 0
    for shard in ("0/2", "1/2"):
        told = batch(f"{reels.url}/in", "--out", f"{reels.url}/out", "--shard", shard, cwd=tmp_path)
        assert (told["skipped"], told["failed"]) == (0, 0)
        done += told["done"]
    assert done == 2


@pytest.mark.parametrize("before_answer", [False, True], ids=["in its middle", "when the store has it"])
def test_a_batch_that_is_killed_while_it_puts_goes_on(
    reels: Bucket, moto: Moto, tmp_path: Path, before_answer: bool
) -> None:
    line = HeldLine(moto.port, before_answer=before_answer)
    ends = (f"{reels.url}/in", "--out", f"{reels.url}/out")
    told = {**os.environ, "AWS_ENDPOINT_URL": line.url}
    child = warm.begin(
        ["batch", *ends, "-j", "1"],
        environment=told,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        assert line.is_held.wait(90)
    finally:
        child.kill()
        child.wait()
    left = reels.names_below("out/")
    assert len(left) == before_answer
    assert counts(batch(*ends, cwd=tmp_path)) == (2, 0, 0)
    assert set(left) < set(reels.names_below("out/"))
    assert len(reels.names_below("out/")) == 4
    for name in reels.names_below("out/"):
        if name.endswith(".json"):
            assert json.loads(reels.get(name))["video"]["file_size"] == len(reels.get(name.replace(".json", ".mp4")))
    line.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (manifest("/etc/hostname"), "found a path of this machine"),
        (manifest("file:///etc/hostname"), "found a path of this machine"),
        (manifest("../../a.ppm"), "expected a name without empty parts, '.' and '..'"),
        (manifest("missing.ppm"), "there is no such object"),
        (manifest("a.ppm", output={"url": "s3://reels/a.mp4"}), "the command line says where videos go"),
        (b"\xff\xfe{}", "expected text in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_manifest_of_a_bucket_is_said(
    bucket: Bucket, tmp_path: Path, content: bytes, words: str
) -> None:
    bucket.put("in/a.ppm", picture((200, 60, 20)))
    bucket.put("in/a.json", content)
    [failure] = batch(f"{bucket.url}/in", "--out", "videos", cwd=tmp_path, code=1)["failures"]
    assert failure["manifest"] == "a.json"
    assert words in failure["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("s3://nobodys-bucket/in", "--out", "videos"),
            "s3://nobodys-bucket/in cannot be listed: there is no such bucket",
        ),
        ((".", "--out", "s3://nobodys-bucket"), "s3://nobodys-bucket cannot be listed: there is no such bucket"),
        (("s3://Upper/in", "--out", "videos"), "s3://Upper/in: expected a bucket of small letters"),
        (("{}/in", "--out", "videos", "--hold", "2"), "--hold takes directories of images on disk"),
    ],
)
def test_a_bucket_that_cannot_be_is_said_before_the_work(
    bucket: Bucket, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ended = run("batch", *(each.format(bucket.url) for each in arguments), cwd=tmp_path)
    assert ended.returncode == 2
    assert words in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("batch", "s3://reels/in", "--out", "videos"),
        ("batch", ".", "--out", "s3://reels/videos"),
        ("render", "s3://reels/a.png", "-o", "x.mp4"),
    ],
)
def test_a_store_that_does_not_answer_is_worth_another_try(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    asked = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "STILLREEL_FETCH__DOWNLOAD_ATTEMPTS": "1",
    }
    ended = run(*arguments, cwd=tmp_path, **asked)
    assert (ended.returncode, "the store does not answer" in ended.stderr) == (4, True), ended.stderr
    assert arguments[-1] == "x.mp4" or "s3://reels/" in ended.stderr
