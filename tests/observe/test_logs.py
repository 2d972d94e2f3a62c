"""Every line with its job, on stderr and in the job's own file, which several processes write to."""

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer.jobs.job import own_id
from renderer.observe.job_log import LOG_NAME, JobLogs, WorkerLog, below, configure_worker
from renderer.observe.logs import JsonFormatter, TextFormatter, configure, current_job, job_context, process_job

log = logging.getLogger("renderer.test_logs")
MOMENT = 1795395723.456  # 2026-11-23T01:02:03.456Z


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, which is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.setLevel(logging.INFO)
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: object = "done", *arguments: object, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("renderer.jobs.engine", logging.INFO, "x.py", 1, message, arguments, None)
    made.created = MOMENT
    made.__dict__.update(fields)
    return made


def raised(words: str) -> object:
    """What a record holds of an exception that was raised."""

    def fail() -> None:
        raise ValueError(words)

    try:
        fail()
    except ValueError:
        return sys.exc_info()


def lines(directory: Path) -> list[dict[str, Any]]:
    """A job's log; every line must be whole."""
    text = (directory / LOG_NAME).read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def messages(directory: Path) -> list[str]:
    return [line["message"] for line in lines(directory)]


# Lines


def test_a_line_for_people_has_time_level_logger_and_job() -> None:
    line = TextFormatter().format(record("accepted: %d images", 3, job="ab12", action="accept", images=3))
    assert line == "2026-11-23T01:02:03.456Z INFO renderer.jobs.engine job=ab12 accepted: 3 images"


def test_a_line_without_a_job_says_so() -> None:
    assert " job=- " in TextFormatter().format(record())
    assert json.loads(JsonFormatter().format(record()))["job"] is None


def test_a_line_for_machines_has_the_extras_that_are_json() -> None:
    endless: list[object] = []
    endless.append(endless)
    told = {"images": 3, "sizes": [(1, 2.5), None], "found": {"a": True, 7: "x"}}
    left_out = {"path": Path("x"), "endless": endless, "nan": float("nan"), "inf": float("-inf"), "big": 10**5000}
    line = JsonFormatter().format(record("accepted", job="ab12", action="accept", **told, **left_out))
    assert json.loads(line) == {
        "ts": "2026-11-23T01:02:03.456Z",
        "level": "INFO",
        "logger": "renderer.jobs.engine",
        "message": "accepted",
        "job": "ab12",
        "action": "accept",
        "images": 3,
        "sizes": [[1, 2.5], None],
        "found": {"a": True, "7": "x"},
    }


def test_an_extra_cannot_take_the_place_of_a_field() -> None:
    line = json.loads(JsonFormatter().format(record("real", ts="x", level="x", logger="x", exc="x")))
    assert (line["ts"], line["level"]) == ("2026-11-23T01:02:03.456Z", "INFO")
    assert (line["logger"], "exc" in line) == ("renderer.jobs.engine", False)


def test_what_a_library_notes_for_itself_is_left_out() -> None:
    assert "_ray_timestamp_ns" not in json.loads(JsonFormatter().format(record("done", _ray_timestamp_ns=17)))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
@given(message=st.text(), job=st.text(min_size=1))
def test_no_message_passes_for_a_second_line(formatter: logging.Formatter, message: str, job: str) -> None:
    line = formatter.format(record(message, job=job))
    assert len(line.splitlines()) == 1
    line.encode()


@given(st.text())
def test_a_job_of_any_spelling_is_one_field(job: str) -> None:
    line = TextFormatter().format(record("end", job=job or "-"))
    match = re.fullmatch(r'\S+ INFO renderer\.jobs\.engine job=([^" ]+|"(?:[^"\\]|\\.)*") end', line)
    assert match
    assert (json.loads(match[1]) if match[1].startswith('"') else match[1]) == (job or "-")


def test_a_traceback_stands_indented_below_its_line() -> None:
    info = raised("bad\n2026-11-23T01:02:03.456Z INFO renderer job=- forged\r\x1b[2J")
    first, *rest = TextFormatter().format(record("failed", exc_info=info)).splitlines()
    assert first.endswith("job=- failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == r"    2026-11-23T01:02:03.456Z INFO renderer job=- forged\r\x1b[2J"
    assert all(line.startswith("    ") for line in rest)
    exception = json.loads(JsonFormatter().format(record("failed", exc_info=info)))["exc"]
    assert exception.startswith("Traceback (most recent call last):")
    assert "ValueError: bad\n2026" in exception


def test_no_secret_comes_out_of_any_part_of_a_line() -> None:
    secret = "https://bob:hunter2@host/a?sig=hunter2 data:image/png;base64,aHVudGVyMg== end"
    info = raised(secret)
    extras = {"url": secret, "urls": [{secret: secret}], "action": secret}
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("cannot read %s", secret, exc_info=info, stack_info=secret, **extras))
        assert "hunter2" not in line
        assert "aHVudGVyMg" not in line
        assert "https://" in line


def test_arguments_that_do_not_fit_cost_the_message_and_not_the_line() -> None:
    line = TextFormatter().format(record("%d images", "three"))
    assert line.endswith("'%d images' with arguments that do not fit it: ('three',)")


def test_configuring_again_replaces_and_does_not_double(capsys: pytest.CaptureFixture[str]) -> None:
    configure(logging.INFO)
    log.info("one")
    configure("WARNING", "json")
    log.info("two")
    log.warning("three", extra={"job": "ab12"})
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("Z INFO renderer.test_logs job=- one")
    assert json.loads(second)["message"] == "three"


def test_a_stderr_that_is_gone_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        configure(logging.INFO)
        log.info("nobody hears this")


# Whose line it is


class Heard(logging.Handler):
    """The job of every line, as a handler sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, str | None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = json.loads(JsonFormatter().format(record))
        self.jobs[line["message"]] = line["job"]


@pytest.fixture
def heard(root: logging.Logger) -> Heard:
    handler = Heard()
    root.addHandler(handler)
    return handler


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_the_nearest_word_on_the_job_counts(heard: Heard) -> None:
    log.info("none")
    with process_job("process"):
        with job_context("context"):
            log.info("named", extra={"job": "named"})
            log.info("context")
        log.info("process")
    log.info("none again")
    assert heard.jobs == {
        "none": None,
        "named": "named",
        "context": "context",
        "process": "process",
        "none again": None,
    }


def test_each_task_has_its_job(heard: Heard) -> None:
    async def work(name: str, turns: asyncio.Barrier) -> None:
        with job_context(name):
            await turns.wait()  # both are inside by now
            log.info(name)
            await asyncio.create_task(asyncio.sleep(0))
            await asyncio.to_thread(log.info, f"{name} in a thread")

    async def both() -> None:
        turns = asyncio.Barrier(2)
        await asyncio.gather(work("a", turns), work("b", turns))

    asyncio.run(both())
    assert heard.jobs == {"a": "a", "b": "b", "a in a thread": "a", "b in a thread": "b"}


def test_a_thread_that_inherits_nothing_logs_as_the_job_of_the_process(heard: Heard) -> None:
    with job_context("a"):
        in_a_thread(lambda: log.info("a thread knows no context"))
    with process_job("a"):
        in_a_thread(lambda: log.info("but its process"))
    assert heard.jobs == {"a thread knows no context": None, "but its process": "a"}


def test_a_pool_that_was_told_its_job_outlives_it(heard: Heard) -> None:
    with process_job("a"):
        pool = ThreadPoolExecutor(1, initializer=current_job.set, initargs=(current_job.get(),))
        pool.submit(log.info, "in time").result()
    with process_job("b"), pool:
        pool.submit(log.info, "late").result()
    assert heard.jobs == {"in time": "a", "late": "a"}


# The log of a job


def test_each_line_goes_to_its_job(tmp_path: Path) -> None:
    with JobLogs(below(tmp_path)):
        log.info("accepted", extra={"job": "a", "images": 3})
        with job_context("b"):
            log.warning("slow")
        log.info("about nobody")
        log.info("done", extra={"job": "a"})
    log.info("nobody listens any more", extra={"job": "a"})
    assert messages(tmp_path / "a") == ["accepted", "done"]
    assert messages(tmp_path / "b") == ["slow"]
    assert (lines(tmp_path / "a")[0]["job"], lines(tmp_path / "a")[0]["images"]) == ("a", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_job_of_a_key_has_its_log_too(tmp_path: Path) -> None:
    owned = own_id("key.me@home", "my-job")
    with JobLogs(below(tmp_path)):
        log.info("accepted", extra={"job": owned})
        log.info("nobody's", extra={"job": "../~a"})
        log.info("nobody's", extra={"job": "a~b~c"})
    assert messages(tmp_path / owned) == ["accepted"]
    assert [path.name for path in tmp_path.iterdir()] == [owned]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with JobLogs(below(tmp_path)):
        log.info("accepted", extra={"job": "a"})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / LOG_NAME).stat().st_mode & 0o777 == 0o600


def test_many_jobs_hold_no_descriptors(tmp_path: Path) -> None:
    with JobLogs(below(tmp_path)):
        log.info("before", extra={"job": "a"})
        held = len(list(Path("/proc/self/fd").iterdir()))
        for number in range(300):
            log.info("accepted", extra={"job": f"job-{number}"})
        assert len(list(Path("/proc/self/fd").iterdir())) == held
    assert len(list(tmp_path.iterdir())) == 301


@pytest.mark.parametrize("job", ["../out", "a/b", ".", "..", "", "x" * 129, "a\0b", "a\n"])
def test_an_id_that_is_no_file_name_has_no_log(tmp_path: Path, job: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with JobLogs(below(logs)):
        log.info("accepted", extra={"job": job})
    assert list(tmp_path.rglob("*")) == [logs]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / LOG_NAME).symlink_to(tmp_path / "elsewhere")
    with JobLogs(below(tmp_path)):
        log.info("accepted", extra={"job": "a"})
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("gone", ["a", "."], ids=["its own", "all"])
def test_a_worker_does_not_bring_a_directory_back(tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture) -> None:
    logs = tmp_path / "logs"
    with JobLogs(below(logs), makes_directories=False):
        (logs / "a").mkdir(parents=True)
        log.info("in time", extra={"job": "a"})
        (logs / "a" / LOG_NAME).unlink()
        (logs / "a").rmdir()
        if gone == ".":
            logs.rmdir()
        log.info("late", extra={"job": "a"})
    assert not (logs / "a").exists()
    assert caplog.messages == ["in time", "late"]


def test_a_worker_is_set_up_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here").mkdir()
    configure_worker(WorkerLog("INFO", "text", tmp_path))
    configure_worker(WorkerLog("INFO", "text", tmp_path))  # Pebble may begin a process again
    for job in ("here", "gone"):
        log.info("late", extra={"job": job})
    assert messages(tmp_path / "here") == ["late"]
    assert not (tmp_path / "gone").exists()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_an_error_below_harms_nobody_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    is_well = False

    def directory_of(job: str) -> Path:
        log.info("asked for %s", job, extra={"job": job})  # would ask again, and again
        if not is_well:
            raise OSError(errno.EIO, "the disk is on fire")
        return tmp_path / job

    with JobLogs(directory_of):
        log.info("one", extra={"job": "a"})
        log.info("two", extra={"job": "a"})
        is_well = True
        log.info("three", extra={"job": "a"})
        is_well = False
        log.info("four", extra={"job": "a"})
    assert messages(tmp_path / "a") == ["three"]
    told = [message for message in caplog.messages if message.startswith("lines are missing")]
    assert told == ["lines are missing in the logs of jobs: [Errno 5] the disk is on fire"] * 2


def test_a_log_ends_at_its_bound_and_says_so(tmp_path: Path) -> None:
    with JobLogs(below(tmp_path), max_bytes=4096), JobLogs(below(tmp_path), max_bytes=4096):
        for number in range(100):
            log.info("line %d", number, extra={"job": "a"})
        log.info("still open", extra={"job": "b"})
    found = lines(tmp_path / "a")
    assert (tmp_path / "a" / LOG_NAME).stat().st_size <= 4096
    assert [line["message"] for line in found[:4]] == ["line 0", "line 0", "line 1", "line 1"]
    assert len(found) > 20
    assert (found[-1]["action"], found[-1]["job"], found[-1]["level"]) == ("log_cut", "a", "WARNING")
    assert [line.get("action") for line in found].count("log_cut") == 1


def test_a_line_that_was_torn_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / LOG_NAME).write_text('{"ts":"2026-1')
    with JobLogs(below(tmp_path)):
        log.info("whole", extra={"job": "a"})
    torn, whole = (tmp_path / "a" / LOG_NAME).read_text().splitlines()
    assert torn == '{"ts":"2026-1'
    assert json.loads(whole)["message"] == "whole"


def test_nobody_else_writes_while_it_is_decided_where_a_log_ends(tmp_path: Path) -> None:
    class Trying(JsonFormatter):
        """Tries to lock the log while its last line is made."""

        def format(self, record: logging.LogRecord) -> str:
            if getattr(record, "action", "") == "log_cut":
                with (tmp_path / "a" / LOG_NAME).open() as other, pytest.raises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return super().format(record)

    with JobLogs(below(tmp_path), max_bytes=1024) as handler:
        handler.setFormatter(Trying())
        for number in range(10):
            log.info("line %d", number, extra={"job": "a"})
    assert lines(tmp_path / "a")[-1]["action"] == "log_cut"


def test_a_process_that_stands_still_with_the_lock_is_not_waited_for(tmp_path: Path) -> None:
    with JobLogs(below(tmp_path)):
        log.info("one", extra={"job": "a"})
        with (tmp_path / "a" / LOG_NAME).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            log.info("two", extra={"job": "a"})
    assert messages(tmp_path / "a") == ["one", "two"]


# Several processes


def write_as_a_worker(logs: Path, count: int, stderr: Path, go: Any) -> None:
    """Run in a child: log one job's lines, from two threads."""
    with stderr.open("w") as sys.stderr, process_job("a"):
        configure_worker(WorkerLog(logging.INFO, "json", logs))
        go.wait(30)
        threads = [
            threading.Thread(target=lambda name=name: [log.info("%s %d", name, n) for n in range(count)])
            for name in ("worker", "decoder")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def a_worker(logs: Path, count: int, stderr: Path) -> Iterator[Any]:
    """Lend the event that lets a child log; it comes from the fork server as workers do, and must end well."""
    context = multiprocessing.get_context("forkserver")
    go = context.Event()
    child = context.Process(target=write_as_a_worker, args=(logs, count, stderr, go))
    child.start()
    try:
        yield go
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
        child.close()


def test_the_daemon_and_its_worker_write_whole_lines_into_one_log(tmp_path: Path) -> None:
    logs, stderr = tmp_path / "logs", tmp_path / "stderr"
    logs.mkdir()
    count = 400
    with JobLogs(below(logs)), job_context("a"):
        log.info("accepted")
        with a_worker(logs, count, stderr) as go:
            go.set()
            for number in range(count):
                log.info("daemon %d %s", number, "x" * 300)
    found = lines(logs / "a")
    assert {line["job"] for line in found} == {"a"}
    for name in ("daemon", "worker", "decoder"):
        said = [int(line["message"].split()[1]) for line in found if line["message"].startswith(name)]
        assert said == list(range(count))  # each in its own order
    assert len(found) == 3 * count + 1
    told = [json.loads(line) for line in stderr.read_text().splitlines()]
    assert (len(told), {line["job"] for line in told}) == (2 * count, {"a"})


def test_the_daemon_and_its_worker_cut_a_log_once(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with JobLogs(below(logs)), job_context("a"), a_worker(logs, 4000, tmp_path / "stderr") as go:
        go.set()
        for number in range(4000):
            log.info("daemon %d", number)
    found = lines(logs / "a")
    assert [line.get("action") for line in found].index("log_cut") == len(found) - 1
    assert 1024 * 1024 - 1024 < (logs / "a" / LOG_NAME).stat().st_size <= 1024 * 1024


def test_what_sets_a_worker_up_can_be_sent_to_it() -> None:
    assert len(pickle.dumps((configure_worker, WorkerLog(logging.INFO, "json", Path("/x"))))) < 500


# Disks that are full


@pytest.fixture
def tiny_disk(tmpfs: Callable[[str, str], Path]) -> Path:
    """A file system of 64 KiB."""
    return tmpfs("disk", "64k")


def test_a_full_disk_costs_the_lines_and_nothing_else(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with JobLogs(below(tiny_disk)), job_context("a"):
        for number in range(1000):
            log.info("line %d", number)
        kept = messages(tiny_disk / "a")
        assert 100 < len(kept) < 1000
        assert kept == [f"line {number}" for number in range(len(kept))]
        with job_context("b"):
            log.info("another job")
        (tiny_disk / "a" / LOG_NAME).unlink()
        log.info("there is room again")
    assert messages(tiny_disk / "a") == ["there is room again"]
    told = [message for message in caplog.messages if message.startswith("lines are missing")]
    assert told == ["lines are missing in the logs of jobs: [Errno 28] No space left on device"]


def test_a_file_that_may_not_grow_keeps_whole_lines_only(tmp_path: Path) -> None:
    script = (
        "import logging, pathlib, resource, sys\n"
        "from renderer.observe.job_log import JobLogs, below\n"
        "from renderer.observe.logs import configure\n"
        "configure('INFO')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "with JobLogs(below(pathlib.Path(sys.argv[1]))):\n"
        "    for n in range(500): logging.getLogger('renderer').info('line %d', n, extra={'job': 'a'})\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    # stderr is a pipe: the limit is for files, and the warning must come through.
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    kept = messages(tmp_path / "a")
    assert kept == [f"line {number}" for number in range(len(kept))]
    assert 50 < len(kept) < 500
    assert len([line for line in ended.stderr.splitlines() if " job=a line " in line]) == 500
    assert ended.stderr.count("lines are missing in the logs of jobs") == 1
