"""An output is finished when its sidecar says so; what is not lies in a directory of its run, which goes with it."""

import fcntl
import json
import os
from pathlib import Path, PurePath

import pytest

from renderer.batch.places import HIDDEN, FileOutput, output_for, workspace
from renderer.batch.plan import as_text, printable
from renderer.errors import ConfigError


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def publish(out: Path, unfinished: Path, content: bytes = b"video") -> FileOutput:
    rendered = unfinished / "0.part"
    rendered.write_bytes(content)
    output = output_for(out, PurePath("a/b"), "0123456789ab")
    output.publish(rendered, {"video": {"file_size": len(content)}, "words": "ü"})
    return output


def test_an_output_stands_where_its_manifest_did(tmp_path: Path) -> None:
    with workspace(tmp_path) as unfinished:
        output = publish(tmp_path, unfinished)
        assert names_in(unfinished) == ["lock"]
    assert output.video == tmp_path / "a" / "b-0123456789ab.mp4"
    assert json.loads(output.sidecar.read_text())["words"] == "ü"
    assert names_in(tmp_path) == ["a"]


def test_an_output_replaces_its_like(tmp_path: Path) -> None:
    with workspace(tmp_path) as first, workspace(tmp_path) as second:
        assert publish(tmp_path, first) == publish(tmp_path, second)
    assert names_in(tmp_path / "a") == ["b-0123456789ab.json", "b-0123456789ab.mp4"]


def test_an_output_is_finished_if_its_sidecar_tells_its_size(tmp_path: Path) -> None:
    with workspace(tmp_path) as unfinished:
        output = publish(tmp_path, unfinished)
        assert output.is_finished()
        output.video.write_bytes(b"vide")
        assert not output.is_finished()
        output = publish(tmp_path, unfinished)
        output.video.unlink()
        assert not output.is_finished()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"video": 5}', '{"video": {}}', '{"video": []}'])
def test_a_sidecar_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    with workspace(tmp_path) as unfinished:
        output = publish(tmp_path, unfinished)
    output.sidecar.write_text(text)
    assert not output.is_finished()
    output.sidecar.unlink()
    assert not output.is_finished()


@pytest.mark.parametrize("name", ["n" * 250, "ü" * 125, "\udcff" * 250])
def test_a_long_name_is_cut(tmp_path: Path, name: str) -> None:
    output = output_for(tmp_path, PurePath(name), "0123456789ab")
    assert len(os.fsencode(output.video.name)) in range(210, 218)
    output.video.touch()
    output.sidecar.touch()


def test_a_name_that_would_command_the_terminal_is_shown_without() -> None:
    assert printable("a\x1b[2J\n\udcff\u202eü\u3000\U0001f469\u200d\U0001f680") == (
        "a\ufffd[2J\ufffd\ufffd\ufffdü\u3000\U0001f469\u200d\U0001f680"
    )


def test_a_name_that_is_no_text_is_written_as_text() -> None:
    assert as_text("ü\n\udcff") == "ü\n\ufffd"


# The directory of a run.


def killed(out: Path, *names: str) -> Path:
    """Leave what a run that was killed leaves."""
    directory = out / HIDDEN / "0123"
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    return directory


@pytest.mark.parametrize("names", [("lock", "0.part.part"), (), ("0.part",)])
def test_what_killed_runs_have_left_is_removed(tmp_path: Path, names: tuple[str, ...]) -> None:
    left = killed(tmp_path, *names)
    with workspace(tmp_path):
        assert not left.exists()
    assert names_in(tmp_path) == []


def test_what_belongs_to_a_living_run_stays(tmp_path: Path) -> None:
    with workspace(tmp_path) as first:
        (first / "0.part").touch()
        with workspace(tmp_path) as second:
            assert first != second
        assert (first / "0.part").exists()
        assert not second.exists()
    assert names_in(tmp_path) == []


def test_a_directory_that_another_run_took_for_dead_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run comes between the making of the directory and its lock, and removes it."""
    real = fcntl.flock
    taken: list[Path] = []

    def flock(file: int, operation: int) -> None:
        if not taken:
            taken.extend((tmp_path / HIDDEN).iterdir())
            (taken[0] / "lock").unlink()
            taken[0].rmdir()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with workspace(tmp_path) as own:
        assert own.is_dir()
        assert own not in taken
    assert names_in(tmp_path) == []


def test_a_file_system_without_locks_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    left = killed(tmp_path, "lock")
    monkeypatch.setattr(fcntl, "flock", flock)
    with workspace(tmp_path) as own:
        assert own.is_dir()
    assert not own.exists()
    assert left.exists()


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / HIDDEN).touch()
    with pytest.raises(ConfigError, match="cannot be written"), workspace(tmp_path):
        pass
