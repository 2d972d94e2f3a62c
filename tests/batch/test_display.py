"""What a person sees: a table that fits its window, a line per video elsewhere, and a summary that names failures."""

import io

import pytest
from rich.console import Console

from protocol.schema import Fault, Progress
from renderer.batch.display import clock, picture, summary
from renderer.batch.run import Failure, Tally


class Clock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def tally() -> Tally:
    """Half-way through a long batch."""
    now = Clock()
    tally = Tally(now=now, total=2000, done=0, skipped=500, ignored=3)
    progress = Progress(images=40, frames=960, stage="rendering")
    for number in range(400):
        tally.begin(str(number), "done.json", progress)
        tally.finish(str(number), 960)
    tally.begin("a", "chapter one/scene with a name that is longer than any column is.json", progress)
    tally.advance("a", progress.model_copy(update={"images_done": 12, "frames_done": 288}))
    tally.begin("b", "b\x1b[2J.json", progress)
    tally.advance("b", progress.model_copy(update={"images_done": 40, "frames_done": 960, "stage": "finishing"}))
    fault = Fault(type="file_download_error", message="images[3].url: no such file")
    tally.fail(Failure("chapter two/[bold]x.json", fault))
    now.time_s = 320.0
    return tally


def drawn(tally: Tally, columns: int, rows: int) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=rows, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(picture(tally, columns, rows))
    return capture.get().splitlines()


def test_the_table_says_how_the_batch_is_doing(tally: Tally) -> None:
    lines = drawn(tally, 100, 30)
    assert lines[0].split() == ["done", "skipped", "failed", "left", "frames/s", "elapsed", "eta"]
    assert lines[1].split() == ["400", "500", "1", "1,096", "1,204", "5:20", "14:33"]
    words = "\n".join(lines)
    assert "chapter one/scene with a name" in words
    assert "288/960" in words
    assert "finishing" in words
    assert "failed: chapter two/[bold]x.json: images[3].url: no such file" in words
    assert "\x1b[2J" not in words


def test_nothing_is_told_before_it_is_known() -> None:
    lines = drawn(Tally(now=Clock()), 100, 30)
    assert lines[1].split() == ["0", "0", "0", "0:00"]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 250])
@pytest.mark.parametrize("rows", [5, 12, 50])
def test_the_table_fits_its_window(tally: Tally, columns: int, rows: int) -> None:
    for number in range(60):
        tally.begin(f"more {number}", f"more {number}.json", Progress(images=1, frames=1, stage="rendering"))
    lines = drawn(tally, columns, rows)
    assert max(map(len, lines)) <= columns
    assert len(lines) <= max(rows, 8)
    assert any("more" in line and line.split()[0] == "and" for line in lines)


def words(tally: Tally, shard: str | None = None) -> list[str]:
    return [line.plain for line in summary(tally, shard)]


def test_the_summary_counts_and_names_each_failure(tally: Tally) -> None:
    assert words(tally) == [
        "400 done, 500 finished before, 1 failed: 384,000 frames in 5:20, 1,204 frames/s",
        "failed: chapter two/[bold]x.json: images[3].url: no such file",
    ]


def test_the_summary_says_what_is_special() -> None:
    assert words(Tally(total=0)) == ["no manifest found; --hold takes directories of images too"]
    assert words(Tally(total=0), "0/4") == ["shard 0/4: no manifest in it"]
    assert words(Tally(total=3, skipped=3), "1/4") == ["shard 1/4: 0 done, 3 finished before"]
    assert words(Tally(total=3, stopped=True)) == ["stopped: 0 done; run it again to go on"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00"), (360_000, "100:00:00")]
)
def test_a_time_is_written_as_people_do(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected
