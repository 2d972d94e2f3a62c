"""`jobs --watch` and `cancel --all` with a real daemon, and the help of every command."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from renderer.cli.app import app
from tests.cli_process import COMMAND, Ended, Terminal, failed, run
from tests.daemon_process import DaemonProcess, Gate, request, wait_until, with_one_job_done

Cli = Callable[..., Ended]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with with_one_job_done(tmp_path_factory.mktemp("daemon"), "--allow-http", ENGINE__WORKERS=1) as daemon:
        yield daemon


@pytest.fixture
def cli(tmp_path: Path, daemon: DaemonProcess) -> Cli:
    return partial(run, cwd=tmp_path, STILLREEL_CONNECT=daemon.endpoint)


def submit(daemon: DaemonProcess, gate: Gate, *names: str) -> None:
    for name in names:
        daemon.client.submit(request({"url": gate.url}, request_id=name))


def unfinished(daemon: DaemonProcess) -> list[str]:
    return [job.request_id for job in daemon.client.jobs(["queued", "running"])]


def test_cancel_all_ends_what_has_not_ended_and_leaves_the_rest(daemon: DaemonProcess, gate: Gate, cli: Cli) -> None:
    submit(daemon, gate, "first", "second")
    ended = cli("cancel", "--all")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.partition(":")[0] for line in ended.stdout.splitlines()] == ["first", "second"]
    wait_until(lambda: not unfinished(daemon), "all have ended")
    states = {job.request_id: job.state for job in daemon.client.jobs()}
    assert states == {"done": "done", "first": "cancelled", "second": "cancelled"}
    ended = cli("cancel", "--all", "--json")
    assert (ended.returncode, json.loads(ended.stdout)) == (0, [])


def test_a_terminal_is_asked_before_all_is_cancelled(daemon: DaemonProcess, gate: Gate) -> None:
    submit(daemon, gate, "kept")
    with closing(Terminal("cancel", "--all", "--connect", daemon.endpoint)) as terminal:
        terminal.read_until(lambda words: "Cancel all jobs that have not ended (1)? [y/N]" in words)
        terminal.press("n\n")
        assert terminal.ended() == 2
    assert unfinished(daemon) == ["kept"]
    with closing(Terminal("cancel", "--all", "-y", "--connect", daemon.endpoint)) as terminal:
        assert terminal.ended() == 0
    wait_until(lambda: not unfinished(daemon), "it has ended")


@pytest.mark.parametrize("arguments", [[], ["a", "--all"]], ids=["neither", "both"])
def test_cancel_takes_a_job_or_all(cli: Cli, arguments: list[str]) -> None:
    assert failed(cli("cancel", *arguments), 2).startswith("error: expected the job's request_id or --all")


def test_watched_jobs_are_told_by_lines_in_a_pipe_until_ctrl_c(daemon: DaemonProcess, gate: Gate) -> None:
    submit(daemon, gate, "moves")
    command = [*COMMAND, "jobs", "--watch", "--connect", daemon.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert watching.stderr
        lines = iter(watching.stdout.readline, "")
        assert any(line.startswith(("moves: running", "moves: queued")) for line in lines)
        daemon.client.cancel("moves")
        last = next(line for line in lines if line.startswith("moves: cancelled"))
        assert last.endswith(" frames: the request was cancelled by its client\n")
        assert not select.select([watching.stdout], [], [], 1.5)[0], "nothing has changed"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        assert watching.stderr.read() == ""


def test_watched_jobs_are_drawn_anew_on_a_terminal_until_ctrl_c(daemon: DaemonProcess, gate: Gate) -> None:
    submit(daemon, gate, "drawn")
    with closing(Terminal("jobs", "--watch", "--connect", daemon.endpoint)) as terminal:
        terminal.read_until(lambda words: "drawn " in words)
        daemon.client.cancel("drawn")
        terminal.read_until(lambda words: "cancelled" in words.rpartition("drawn ")[2])
        terminal.interrupt()
        assert terminal.ended() == 0
    assert terminal.words.count("request_id") > 1


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name in command.list_commands(None) if isinstance(command, click.Group) else ():
        yield from commands(command.get_command(None, name), *names, name)


@pytest.mark.parametrize("names", list(commands(app)), ids=lambda names: " ".join(names) or "stillreel")
def test_the_help_of_every_command_tells_the_exit_codes(names: tuple[str, ...]) -> None:
    told = " ".join(CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert re.search(r"Exit codes: 0 [a-z].*, 2 usage or configuration\b.*\.$", told), told


def test_the_help_of_a_command_names_no_exit_code_that_it_cannot_have() -> None:
    told = {" ".join(names): CliRunner().invoke(app, [*names, "--help"]).stdout for names in commands(app)}
    without_daemon = ("render", "batch", "serve", "doctor", "keys", "store")
    assert [name for name in told if name.startswith(without_daemon) and "no daemon answers" in told[name]] == []


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(typed: str) -> set[str]:
        environment = {
            **os.environ,
            "_STILLREEL_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        }
        command = [Path(sys.executable).with_name("stillreel")]
        ended = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        return {line.partition(",")[2] for line in ended.stdout.split()}

    assert completed("stillreel can") == {"cancel"}
    assert completed("stillreel jobs --wa") == {"--watch"}
