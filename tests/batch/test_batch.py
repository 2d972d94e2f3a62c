"""A batch with real renders: formats, outputs, what a second run does again, and what one bad image costs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from renderer.errors import ConfigError
from tests.batch.conftest import RunBatch, Tree
from tests.daemon_process import picture, still


def told(tree: Tree, stem: str) -> dict[str, Any]:
    """Return the sidecar of an output."""
    sidecar: dict[str, Any] = json.loads(tree.videos()[stem].with_suffix(".json").read_text())
    return sidecar


def inodes(tree: Tree) -> dict[str, int]:
    return {stem: path.stat().st_ino for stem, path in tree.videos().items()}


def test_every_format_is_rendered_where_it_stands_in_the_tree(tree: Tree, run: RunBatch) -> None:
    for name in ("a.ppm", "deep/er/b.ppm"):
        tree.image(name)
    tree.manifest("one", {"url": "a.ppm", "frames": 3}, fps=30, metadata={"shot": 7})
    tree.write(
        "deep/two.jsonl", '{"fps": 10}\n{"url": "../a.ppm", "frames": 2}\n{"url": "er/b.ppm", "duration": 0.5}\n'
    )
    tree.write("deep/er/three.csv", "url;frames\nb.ppm;4\n../../a.ppm;1\n")
    ended = run()
    assert (ended.code, ended.counts(), ended.document["frames"]) == (0, (3, 0, 0), 15)
    assert set(tree.videos()) == {"one", "deep/two", "deep/er/three"}
    assert [told(tree, stem)["frames"] for stem in ("one", "deep/two", "deep/er/three")] == [3, 7, 5]
    one = told(tree, "one")
    assert (one["manifest"], one["fps"], one["metadata"]) == ("one.json", "30/1", {"shot": 7})
    assert one["video"]["url"] == tree.videos()["one"].as_uri()
    assert one["video"]["file_name"] == tree.videos()["one"].name
    tree.check()


def test_a_second_run_renders_nothing(tree: Tree, run: RunBatch) -> None:
    for name in ("a", "b", "sub/c"):
        tree.manifest(name)
    assert run().counts() == (3, 0, 0)
    before = inodes(tree)
    ended = run()
    assert (ended.code, ended.counts(), ended.document["frames"]) == (0, (0, 3, 0), 0)
    assert inodes(tree) == before
    tree.check()


def test_editing_an_image_renders_its_videos_again_and_no_other(tree: Tree, run: RunBatch) -> None:
    for name in ("a", "b", "c"):
        tree.manifest(name)
    run()
    before = tree.videos()
    tree.image("b.ppm", (1, 2, 3))
    assert run().counts() == (1, 2, 0)
    assert len(list(tree.out.glob("b-*.mp4"))) == 2
    assert {before["a"], before["b"], before["c"]} < set(tree.out.iterdir())
    tree.check()


def test_a_still_of_many_videos_is_kept_once_for_all_of_them_and_for_later_runs(tree: Tree, run: RunBatch) -> None:
    title = {"url": tree.image("title.ppm").name, "frames": 24}
    for name in ("a", "b", "c"):
        tree.manifest(name, title, {"url": tree.image(f"{name}.ppm", (9, 9, ord(name))).name, "frames": 24})
    stills = tree.root.parent / "stills"
    assert run("--stills", str(stills)).counts() == (3, 0, 0)
    kept = {path: path.stat().st_mtime_ns for path in stills.glob("kept/*/*")}
    assert len(kept) == 4
    tree.manifest("d", title)
    assert run("--stills", str(stills)).counts() == (1, 3, 0)
    assert sum(path.stat().st_mtime_ns != moment for path, moment in kept.items()) == 1
    tree.check()


@pytest.mark.parametrize("harm", ["video", "sidecar", "both", "cut", "emptied"])
def test_what_is_not_whole_is_rendered_again(tree: Tree, run: RunBatch, harm: str) -> None:
    for name in ("a", "b"):
        tree.manifest(name)
    run()
    video = tree.videos()["a"]
    if harm in ("video", "both"):
        video.unlink()
    if harm in ("sidecar", "both"):
        video.with_suffix(".json").unlink()
    if harm == "cut":
        os.truncate(video, 100)
    if harm == "emptied":
        video.with_suffix(".json").write_text("")
    assert run().counts() == (1, 1, 0)
    tree.check()


def test_settings_that_change_the_video_change_its_name(tree: Tree, run: RunBatch) -> None:
    tree.manifest("a")
    run()
    assert run("--set", "fps=30", "--set", "crf=30").counts() == (1, 0, 0)
    assert run("--set", "fps=30", "--set", "crf=30").counts() == (0, 1, 0)
    assert {json.loads(path.read_text())["fps"] for path in tree.out.glob("*.json")} == {"24/1", "30/1"}


def test_scaling_and_canvas_are_options_of_every_request(tree: Tree, run: RunBatch) -> None:
    tree.manifest("a")
    run()
    assert run("--scaling", "nearest").counts() == (1, 0, 0)
    assert run("--set", "scaling=nearest").counts() == (0, 1, 0)
    assert run("--canvas", "largest").counts() == (1, 0, 0)


def test_outputs_have_the_same_names_wherever_the_tree_is(tree: Tree, run: RunBatch, tmp_path: Path) -> None:
    tree.manifest("a")
    tree.manifest("sub/b")
    run()
    shutil.copytree(tree.root, tmp_path / "copy")
    run(directory=tmp_path / "copy", out=tmp_path / "copy out")
    names = [
        sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) for out in (tree.out, tmp_path / "copy out")
    ]
    assert names[0] == names[1]
    assert run(directory=tmp_path / "copy").counts() == (0, 2, 0)


def test_outputs_may_go_below_the_manifests_or_beside_them(tree: Tree, run: RunBatch) -> None:
    tree.manifest("a")
    tree.manifest("sub/b")
    below = Tree(tree.root, tree.root / "sub" / "out")
    assert run(out=below.out).counts() == (2, 0, 0)
    assert run(out=below.out).counts() == (0, 2, 0)
    below.check()
    shutil.rmtree(below.out)
    assert run(out=tree.root).counts() == (2, 0, 0)
    ended = run(out=tree.root)
    assert (ended.counts(), ended.document["ignored"]) == ((0, 2, 0), 2)


def test_directories_of_images_are_videos_with_hold(tree: Tree, run: RunBatch) -> None:
    for name in ("1.ppm", "reel/img10.ppm", "reel/img2.ppm", "other/a.ppm"):
        tree.image(name, (len(name) * 10, 0, 0))
    tree.write("other/list.csv", "url,frames\na.ppm,5\n")
    assert run().counts() == (1, 0, 0)
    ended = run("--hold", "0.5s")
    assert ended.counts() == (2, 1, 0)
    assert set(tree.videos()) == {"in", "reel", "other/list"}
    assert (told(tree, "reel")["frames"], told(tree, "reel")["manifest"]) == (24, "reel")
    assert (told(tree, "in")["frames"], told(tree, "in")["manifest"]) == (12, ".")
    assert run("--hold", "0.5s").counts() == (0, 3, 0)
    tree.check()


def test_the_frame_rate_may_be_given_for_all(tree: Tree, run: RunBatch) -> None:
    tree.image("reel/1.ppm", (10, 20, 30))
    assert run("--hold", "0.5s", "--fps", "30").counts() == (1, 0, 0)
    assert (told(tree, "reel")["frames"], told(tree, "reel")["fps"]) == (15, "30/1")


def test_shards_partition_a_batch(tree: Tree, run: RunBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        tree.manifest(f"m{number}")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    counts = [run("--shard", shard).counts() for shard in ("0/3", "1/3", "auto/3")]
    assert sum(done for done, _, _ in counts) == 6
    assert all((skipped, failed) == (0, 0) for _, skipped, failed in counts)
    assert run().counts() == (0, 6, 0)


def test_each_failure_costs_its_own_video_only(tree: Tree, run: RunBatch) -> None:
    tree.manifest("good")
    tree.manifest("sub/also good")
    tree.write("broken.json", "{")
    tree.write("array.json", "[]")
    tree.write("notes.json", '{"words": 1}')
    tree.write("rows.csv", "url,frames\na.ppm,1\nb.ppm,x\n")
    tree.write("lines.jsonl", '{"url": "a.ppm"}\n{')
    tree.manifest("gone", still(), {"url": "missing.png"})
    tree.manifest("field", still(), nonsense=1)
    tree.write("damaged.png", "").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    tree.manifest("damaged", still(), {"url": "damaged.png"}, width=64, height=48)
    ended = run()
    assert (ended.code, ended.counts(), ended.document["ignored"]) == (1, (2, 0, 7), 1)
    assert ended.failures() == {
        "broken.json": "expected JSON: the text ends within an object at line 1 column 1",
        "array.json": "expected a JSON object, found []",
        "rows.csv": "line 3: frames: expected a whole number, found 'x'",
        "lines.jsonl": "line 2: expected JSON: the text ends within an object at column 1",
        "gone.json": "images[1].url: missing.png: no such file",
        "field.json": "nonsense: no such field",
        "damaged.json": "images[1].url: damaged.png: expected a whole PNG image, found a damaged one",
    }
    lines = ended.stderr.splitlines()
    assert [line for line in lines if line.startswith("failed: ")] == [
        f"failed: {name}: {message}" for name, message in ended.failures().items()
    ]
    assert "2 done, 7 failed, 1 left out: 6 frames" in ended.stderr
    assert set(tree.videos()) == {"good", "sub/also good"}
    tree.check()
    assert run().counts() == (0, 2, 7)


def test_an_image_that_changes_while_its_video_is_made_is_not_mistaken(
    tree: Tree, run: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder's name is a script that edits the image before it encodes."""
    tree.manifest("a")
    image = tree.root / "a.ppm"
    ffmpeg = tree.root / "ffmpeg"
    from renderer.config import EncodeSettings
    from renderer.encode.ffmpeg import find_ffmpeg

    ffmpeg.write_text(f'#!/bin/sh\nprintf 0 >> "{image}"\nexec "{find_ffmpeg(EncodeSettings())}" "$@"\n')
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("STILLREEL_ENCODE__FFMPEG", str(ffmpeg))
    ended = run()
    assert ended.failures() == {"a.json": "an image was changed while the video was made; run the batch again"}
    assert ended.code == 4
    assert tree.videos() == {}
    monkeypatch.delenv("STILLREEL_ENCODE__FFMPEG")
    assert run().counts() == (1, 0, 0)
    tree.check()


def test_a_directory_with_nothing_to_render_is_a_failure_unless_it_is_a_shard(tree: Tree, run: RunBatch) -> None:
    tree.image("a.ppm")
    ended = run()
    assert (ended.code, ended.counts()) == (1, (0, 0, 0))
    assert "no manifest found" in ended.stderr
    assert list(tree.out.iterdir()) == []


def test_names_of_any_kind_are_rendered(tree: Tree, run: RunBatch) -> None:
    names = [b"\xff\xfe", "ü ö".encode(), b"a\x1b[31m", b"n" * 240, b"http:x"]
    for number, name in enumerate(names):
        (tree.root / os.fsdecode(name + b".csv")).write_text("url\na.ppm\n")
        directory = tree.root / str(number) / os.fsdecode(name)
        directory.mkdir(parents=True)
        (directory / os.fsdecode(name + b".ppm")).write_bytes(picture((number, 0, 0)))
    tree.image("a.ppm")
    ended = run("--hold", "1")
    assert (ended.code, ended.counts()) == (0, (10, 0, 0))
    assert run("--hold", "1").counts() == (0, 10, 0)
    assert "\x1b" not in ended.stderr
    tree.check()


def test_a_line_is_written_for_each_video_that_is_done_or_failed(tree: Tree, run: RunBatch) -> None:
    tree.manifest("a")
    tree.write("b.json", "{")
    lines = run().stderr.splitlines()
    assert len(lines) == 4
    assert any("done    a.json -> a-" in line and "mp4, 3 frames in " in line for line in lines[:2])
    assert any("failed  b.json: expected JSON" in line for line in lines[:2])
    assert len(run().stderr.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard", "2/2"), "--shard 2/2: "),
        (("--hold", "long"), "--hold long: "),
        (("--set", "fps"), "--set fps: "),
        (("--config", "/missing.toml"), "configuration file /missing.toml: "),
    ],
)
def test_wrong_options_are_refused_before_anything_is_rendered(
    tree: Tree, run: RunBatch, arguments: tuple[str, ...], words: str
) -> None:
    tree.manifest("a")
    with pytest.raises(ConfigError) as raised:
        run(*arguments)
    assert raised.value.message.startswith(words)
    assert tree.videos() == {}


def test_directories_that_cannot_be_used_are_refused(tree: Tree, run: RunBatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a directory, found"):
        run(directory=tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out .*file: "):
        run(out=tmp_path / "file")
    with pytest.raises(ConfigError, match=r"--out .*: Not a directory"):
        run(out=tmp_path / "file" / "below")


def test_an_encoder_that_is_not_there_is_refused(tree: Tree, run: RunBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLREEL_ENCODE__FFMPEG", "/nowhere/ffmpeg")
    with pytest.raises(ConfigError, match=r"encode\.ffmpeg: expected a program that can be run, found /nowhere/ffmpeg"):
        run()


def test_what_is_left_out_is_counted_and_named(tree: Tree, run: RunBatch) -> None:
    tree.image("a/1.ppm")
    tree.write("a/2.svg", "<svg/>")
    tree.write("only/1.svg", "<svg/>")
    tree.write("log.jsonl", '{"level": "info"}\n')
    tree.write("table.csv", "name,age\nx,3\n")
    ended = run("--hold", "2")
    assert (ended.code, ended.counts(), ended.document["ignored"]) == (1, (1, 0, 1), 2)
    assert {each["file"] for each in ended.document["left_out"]} == {"a/2.svg", "only/1.svg", "log.jsonl", "table.csv"}
    assert "left out: a/2.svg: a picture of a format that is not read here" in ended.stderr.splitlines()
    assert ended.failures() == {
        "only": "expected a directory with images, found none; "
        "1 picture is left out, of a format that is not read here: 1.svg"
    }
