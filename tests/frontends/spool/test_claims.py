"""Claims on real directories: who wins, who keeps, who may take over, and where it all ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.schema import File
from renderer.errors import ConfigError
from renderer.frontends.spool.claim import Claims
from renderer.frontends.spool.incoming import Waiting
from renderer.frontends.spool.layout import Claim, has_files
from tests.daemon_process import wait_until
from tests.manifest_directory import age, as_nobody, drop_in, everybodys_directory, owner_of, tree

LEASE_S = 30.0
OLD_S = LEASE_S + 5

# A daemon as far as the directory can tell: it does what its standard input says, and prints what came of it as JSON.
CHILD = """
import json, sys
from pathlib import Path
from renderer.frontends.spool.claim import Claims

claims = Claims(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
for line in sys.stdin:
    if line == "look\\n":
        seen, found = claims.waiting(), []
    if line == "claim all\\n":
        found = [claim for waiting in seen if (claim := claims.claim(waiting))]
    if line == "claim one\\n":
        found = [claims.claim(claims.waiting()[0])]
    if line == "take over\\n":
        found = claims.take_over(1000)
    if line == "lock\\n":
        with claims._locked():
            print("[]", flush=True)
            sys.stdin.readline()
    print(json.dumps([[claim.id, claim.name] for claim in found]), flush=True)
"""


class Other:
    """Another daemon's process."""

    def __init__(self, directory: Path, daemon: str, lease_s: float = LEASE_S) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD, directory, daemon, str(lease_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, order: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(f"{order}\n")
        self.child.stdin.flush()

    def answer(self) -> list[tuple[str, str]]:
        assert self.child.stdout
        return [(claim, name) for claim, name in json.loads(self.child.stdout.readline())]

    def ask(self, order: str) -> list[tuple[str, str]]:
        self.begin(order)
        return self.answer()

    def signal(self, number: signal.Signals, state: str) -> None:
        """Send a signal and wait until it has shown; the process is not reaped, as under a parent that is busy."""
        self.child.send_signal(number)
        stat = Path(f"/proc/{self.child.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == state, f"the process is {state}")

    def close(self) -> None:
        self.child.kill()
        self.child.communicate()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def reachable() -> Iterator[Path]:
    with everybodys_directory() as directory:
        daemon(directory)
        for path in directory.iterdir():
            path.chmod(0o777)
        yield directory


@pytest.fixture
def other(spool: Path) -> Iterator[Callable[..., Other]]:
    with contextlib.ExitStack() as stack:

        def start(daemon: str = "other") -> Other:
            started = Other(spool, daemon)
            stack.callback(started.close)
            return started

        yield start


def daemon(spool: Path, name: str = "ours", host: str | None = None) -> Claims:
    """A daemon in this process; `host` makes it one on another machine, whose process cannot be seen from here."""
    claims = Claims(spool, name, LEASE_S)
    if host:
        claims._us = claims._us.model_copy(update={"host": host})
    return claims


def claim_one(claims: Claims) -> Claim:
    [found] = claims.waiting()
    claim = claims.claim(found)
    assert claim
    return claim


def finish(claims: Claims, claim: Claim, text: str = "report") -> Path | None:
    return claims.finish(claim, "failed", lambda _: text)


# Waiting.


def test_a_manifest_is_a_json_file_or_a_directory_with_a_manifest_and_nothing_else_is(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "single", "bundle/", ".hidden", ".hidden/", "half.tmp/", "half.part/", "odd.json/")
    for name in ("a.png", "b.json.tmp", "c.json.part", "d.JSON", "e.txt"):
        (claims.incoming / name).write_text("{}")
    (claims.incoming / "images").mkdir()
    (claims.incoming / "images.json").mkdir()
    (claims.incoming / "linked").symlink_to(claims.incoming / "images")
    (claims.incoming / "gone").symlink_to(claims.incoming / "nothing")
    os.mkfifo(claims.incoming / "pipe")
    assert sorted((found.entry, found.name, found.is_bundle) for found in claims.waiting()) == [
        ("bundle", "bundle", True),
        ("d.JSON", "d", False),
        ("odd.json", "odd.json", True),
        ("single.json", "single", False),
    ]


def test_the_oldest_comes_first_then_the_name_decides(spool: Path) -> None:
    claims = daemon(spool)
    same = "hdbgaecf"
    drop_in(spool, *same, "old", "older/")
    now = time.time()
    for name in same:
        os.utime(claims.incoming / f"{name}.json", (now, now))
    age(claims.incoming / "old.json", 20)
    age(claims.incoming / "older", 30)
    assert [found.name for found in claims.waiting()] == ["older", "old", *sorted(same)]


def test_every_name_that_the_system_allows_is_claimed_and_keeps_it(spool: Path) -> None:
    claims = daemon(spool)
    names = ["with space", "line\nbreak", "ünï", os.fsdecode(b"\xff\xfe raw"), "n" * 250, "-rf", "a.tmp", "%41"]
    drop_in(spool, *names)
    drop_in(spool, "b" * 255 + "/")
    ends = [finish(claims, claim) for found in claims.waiting() if (claim := claims.claim(found))]
    assert {end.name for end in ends if end} == {*names, "b" * 255}
    assert tree(spool / "active") == tree(spool / "incoming") == set()


# Claiming.


def test_a_file_is_claimed_into_a_directory_of_its_name_and_its_paths_start_where_it_lay(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one", text='{"a": 1}')
    claim = claim_one(claims)
    assert claim.manifest == spool / "active" / claim.id / "one" / "manifest.json"
    assert claim.manifest.read_text() == '{"a": 1}'
    assert (claim.base, claim.job_id) == (spool / "incoming", claim.id)
    assert claims.waiting() == []


def test_a_bundle_is_claimed_with_its_images_and_its_paths_start_in_it(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "two/")
    claim = claim_one(claims)
    assert claim.base == claim.files == spool / "active" / claim.id / "two"
    assert tree(claim.files) == {"manifest.json", "a.png"}
    assert tree(spool / "incoming") == set()


def test_the_owners_file_tells_host_process_start_and_daemon(spool: Path) -> None:
    drop_in(spool, "one")
    found = owner_of(claim_one(daemon(spool)).directory)
    assert (found["host"], found["pid"], found["daemon"]) == (os.uname().nodename, os.getpid(), "ours")
    ticks, boot = found["process_started"].split("@")
    assert int(ticks) > 0
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_manifest_that_vanished_is_not_claimed_and_leaves_nothing(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one", "two/")
    found = claims.waiting()
    (claims.incoming / "one.json").unlink()
    (claims.incoming / "two").rename(spool / "elsewhere")
    assert [claims.claim(waiting) for waiting in found] == [None, None]
    assert tree(spool / "active") == set()


def test_a_link_to_a_bundle_moves_as_a_link_and_nothing_is_written_where_it_leads(spool: Path, tmp_path: Path) -> None:
    claims = daemon(spool)
    drop_in(tmp_path, "real/")
    (claims.incoming / "link").symlink_to(tmp_path / "incoming" / "real")
    claim = claim_one(claims)
    assert claim.manifest.is_symlink()
    end = finish(claims, claim)
    assert end == spool / "failed" / "link"
    assert tree(end) == {"manifest.json", "error.json"}
    assert tree(tmp_path / "incoming" / "real") == {"manifest.json", "a.png"}


def test_a_bundle_that_becomes_a_link_while_it_is_claimed_is_left_where_it_is(spool: Path, tmp_path: Path) -> None:
    claims = daemon(spool)
    drop_in(tmp_path, "real/")
    (claims.incoming / "swapped").symlink_to(tmp_path / "incoming" / "real")
    assert claims.claim(Waiting("swapped", "swapped", is_bundle=True)) is None
    assert (claims.incoming / "swapped").is_symlink()
    assert tree(spool / "active") == set()


@pytest.mark.parametrize("name", ["owner.json", "result.json", "error.json", "video.mp4"])
def test_a_manifest_with_a_name_of_ours_ends_under_the_next(spool: Path, name: str) -> None:
    claims = daemon(spool)
    drop_in(spool, f"{name}/")
    claim = claim_one(claims)
    assert claims.is_ours(claim)
    assert finish(claims, claim) == spool / "failed" / f"{name}.2"


def test_two_processes_that_race_for_200_manifests_claim_each_once(spool: Path, other: Callable[..., Other]) -> None:
    """In ten rounds, begun by each in turn: on a busy machine one may be through before the other runs."""
    manifests = [f"m{number}{'/' * (number % 2)}" for number in range(200)]
    claimed: dict[str, list[tuple[str, str]]] = {"first": [], "second": []}
    racers = [(name, other(name)) for name in claimed]
    for begin in range(0, 200, 20):
        drop_in(spool, *manifests[begin : begin + 20])
        for _, racer in racers:
            racer.ask("look")  # it runs, and sees them all
        for _, racer in racers:
            racer.begin("claim all")
        for name, racer in racers:
            claimed[name] += racer.answer()
        racers.reverse()
    first, second = claimed.values()
    assert first
    assert second
    assert sorted(name for _, name in first + second) == sorted(f"m{number}" for number in range(200))
    assert len(list((spool / "active").iterdir())) == 200
    for claim, name in first + second:
        assert (spool / "active" / claim / name / "manifest.json").read_text() == "{}"
        assert owner_of(spool / "active" / claim)["daemon"] == ("first" if (claim, name) in first else "second")
    assert tree(spool / "incoming") == set()


# Holding and taking over.


def test_a_killed_owners_claim_is_taken_over_after_the_lease_and_not_before(
    spool: Path, other: Callable[..., Other]
) -> None:
    drop_in(spool, "one")
    owner = other()
    [(claim_id, _)] = owner.ask("claim one")
    claims = daemon(spool)
    owner.signal(signal.SIGKILL, "Z")
    age(spool / "active" / claim_id / "owner.json", LEASE_S - 15)
    assert claims.take_over(10) == []
    age(spool / "active" / claim_id / "owner.json", OLD_S)
    [claim] = claims.take_over(10)
    assert (claim.id, claim.name, claim.base) == (claim_id, "one", spool / "incoming")
    assert claims.is_ours(claim)
    assert claims.take_over(10) == []


def test_an_owner_that_is_stopped_on_our_host_keeps_its_claim(spool: Path, other: Callable[..., Other]) -> None:
    drop_in(spool, "one")
    owner = other()
    [(claim_id, _)] = owner.ask("claim one")
    claims = daemon(spool)
    age(spool / "active" / claim_id / "owner.json", 3600)
    owner.signal(signal.SIGSTOP, "T")
    assert claims.take_over(10) == []
    owner.signal(signal.SIGKILL, "Z")
    assert len(claims.take_over(10)) == 1


def test_another_process_with_the_owners_pid_is_no_owner(spool: Path) -> None:
    drop_in(spool, "one")
    claim = claim_one(daemon(spool, "theirs"))
    path = claim.directory / "owner.json"
    path.write_text(json.dumps(owner_of(claim.directory) | {"process_started": "1@another boot"}))
    claims = daemon(spool)
    assert claims.take_over(10) == []
    age(path, OLD_S)
    assert len(claims.take_over(10)) == 1


def test_an_owner_on_another_host_keeps_its_claim_as_long_as_it_renews_it(spool: Path) -> None:
    drop_in(spool, "one")
    there, here = daemon(spool, "theirs", host="elsewhere"), daemon(spool)
    claim = claim_one(there)
    age(claim.directory / "owner.json", OLD_S)
    assert there.renew([claim]) == []
    assert here.take_over(10) == []
    age(claim.directory / "owner.json", OLD_S)
    [taken] = here.take_over(10)
    assert taken.id == claim.id
    assert there.renew([claim]) == [claim]
    assert not there.is_ours(claim)
    assert here.is_ours(taken)


def test_renewing_does_not_touch_a_claim_that_is_lost(spool: Path) -> None:
    drop_in(spool, "one")
    there, here = daemon(spool, "theirs", host="elsewhere"), daemon(spool)
    claim = claim_one(there)
    age(claim.directory / "owner.json", OLD_S)
    here.take_over(10)
    age(claim.directory / "owner.json", 5)
    before = (claim.directory / "owner.json").stat()
    there.renew([claim])
    assert (claim.directory / "owner.json").stat().st_mtime_ns == before.st_mtime_ns


def test_a_claim_gets_another_job_when_another_daemon_takes_it_and_keeps_it_in_its_own(spool: Path) -> None:
    drop_in(spool, "one")
    first, second = daemon(spool, "first", host="elsewhere"), daemon(spool, "second", host="afar")
    claim = claim_one(first)
    age(claim.directory / "owner.json", OLD_S)
    [taken] = second.take_over(10)
    [again] = daemon(spool, "second").adopt()
    age(claim.directory / "owner.json", OLD_S)
    [returned] = first.take_over(10)
    assert taken.job_id == again.job_id
    assert len({claim.job_id, taken.job_id, returned.job_id}) == 3
    assert claim.id == taken.id == returned.id
    assert first.is_ours(returned)
    assert not first.is_ours(claim)
    assert claim.output != taken.output


def test_what_an_earlier_process_of_our_daemon_held_is_ours_at_once(spool: Path, other: Callable[..., Other]) -> None:
    drop_in(spool, "one", "two/")
    before = other("ours")
    before.ask("look")
    held = before.ask("claim all")
    before.signal(signal.SIGKILL, "Z")
    adopted = daemon(spool).adopt()
    assert sorted((claim.id, claim.name) for claim in adopted) == sorted(held)
    assert {claim.name: (claim.base, claim.job_id) for claim in adopted} == {
        claim.name: (claim.files if claim.name == "two" else spool / "incoming", claim.id) for claim in adopted
    }
    assert other("theirs").ask("take over") == []


def test_what_an_earlier_process_of_our_daemon_left_is_taken_over_at_once_but_not_what_this_one_holds(
    spool: Path, other: Callable[..., Other]
) -> None:
    drop_in(spool, "one")
    before = other("ours")
    [(claim_id, _)] = before.ask("claim one")
    before.signal(signal.SIGKILL, "Z")
    claims = daemon(spool)
    [claim] = claims.take_over(10)
    assert claim.id == claim_id
    age(claim.directory / "owner.json", OLD_S)
    assert claims.take_over(10) == []


def test_what_another_daemon_holds_is_not_adopted(spool: Path) -> None:
    drop_in(spool, "one")
    claim_one(daemon(spool, "theirs"))
    assert daemon(spool).adopt() == []


def test_no_more_is_taken_over_than_there_is_room_for(spool: Path) -> None:
    drop_in(spool, "a", "b", "c")
    there = daemon(spool, "theirs", host="elsewhere")
    for found in there.waiting():
        claim = there.claim(found)
        assert claim
        age(claim.directory / "owner.json", OLD_S)
    claims = daemon(spool)
    assert [len(claims.take_over(most)) for most in (0, 2, 2)] == [0, 2, 1]


def test_two_that_take_over_at_once_do_not_both_get_it(spool: Path, other: Callable[..., Other]) -> None:
    drop_in(spool, *map(str, range(40)))
    there = daemon(spool, "theirs", host="elsewhere")
    for found in there.waiting():
        claim = there.claim(found)
        assert claim
        age(claim.directory / "owner.json", OLD_S)
    racers = [other("first"), other("second")]
    for racer in racers:
        racer.begin("take over")
    taken = [name for racer in racers for _, name in racer.answer()]
    assert sorted(taken) == sorted(map(str, range(40)))


def test_what_was_due_is_looked_at_again_under_the_lock(spool: Path) -> None:
    drop_in(spool, "one")
    there, here = daemon(spool, "theirs", host="elsewhere"), daemon(spool)
    claim = claim_one(there)
    age(claim.directory / "owner.json", OLD_S)
    taken: list[Claim] = []
    with there._locked():
        taking = threading.Thread(target=lambda: taken.extend(here.take_over(10)))
        taking.start()
        time.sleep(0.3)  # it has found the owner dead and waits
        there.renew([claim])
    taking.join()
    assert taken == []
    assert there.is_ours(claim)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"pid": 1}', "\0" * 100, "x" * 100_000],
    ids=["empty", "cut off", "list", "incomplete", "zeros", "long"],
)
@pytest.mark.parametrize("name", ["single", "bundle/"])
def test_a_spoilt_owners_file_is_that_of_a_dead_owner(spool: Path, text: str, name: str) -> None:
    drop_in(spool, name)
    claim = claim_one(daemon(spool, "theirs"))
    (claim.directory / "owner.json").write_text(text)
    claims = daemon(spool)
    assert claims.take_over(10) == []
    age(claim.directory / "owner.json", OLD_S)
    [taken] = claims.take_over(10)
    assert taken.base == claim.base
    assert taken.job_id != claim.job_id


def test_a_claim_without_an_owner_is_removed_if_empty_and_taken_over_if_not_but_after_the_lease(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one")
    empty, full = spool / "active" / ("0" * 32), claim_one(claims).directory
    empty.mkdir()
    (full / "owner.json").unlink()
    assert claims.take_over(10) == []
    age(empty, OLD_S)
    age(full, OLD_S)
    [taken] = claims.take_over(10)
    assert taken.directory == full
    assert not empty.exists()


@pytest.mark.parametrize("name", ["readme", "0" * 31, "G" * 32])
def test_what_is_no_claim_is_left_alone(spool: Path, name: str) -> None:
    claims = daemon(spool)
    (spool / "active" / name).mkdir()
    age(spool / "active" / name, OLD_S)
    assert claims.take_over(10) == claims.adopt() == []
    assert (spool / "active" / name).exists()


def test_a_claim_whose_owner_died_before_the_rename_goes_and_its_manifest_is_claimed_by_others(spool: Path) -> None:
    drop_in(spool, "one")
    claim = claim_one(daemon(spool))
    claim.manifest.rename(spool / "incoming" / "one.json")
    claim.files.rmdir()
    assert daemon(spool).adopt() == []
    assert not claim.directory.exists()
    assert claim_one(daemon(spool)).name == "one"


# Ending.


def test_a_claim_ends_with_its_report_and_its_video_in_a_directory_of_its_name(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one/")
    claim = claim_one(claims)
    claim.output.mkdir()
    (claim.output / "video.mp4").write_text("a video")
    (claim.output / ".attempt-1.mp4").write_text("half a video")
    end = claims.finish(claim, "done", lambda end: f"it is in {end.name}")
    assert end == spool / "done" / "one"
    assert tree(end) == {"manifest.json", "a.png", "result.json", "video.mp4"}
    assert ((end / "result.json").read_text(), (end / "video.mp4").read_text()) == ("it is in one", "a video")
    assert tree(spool / "active") == set()


def test_nothing_is_overwritten_the_next_number_is_taken(spool: Path) -> None:
    claims = daemon(spool)
    ends = []
    for _ in range(3):
        drop_in(spool, "same")
        ends.append(finish(claims, claim_one(claims), "first" if not ends else "later"))
    assert [end.name for end in ends if end] == ["same", "same.2", "same.3"]
    assert (spool / "failed" / "same" / "error.json").read_text() == "first"


@pytest.mark.parametrize("there", ["file", "link", "dangling", "full"])
def test_whatever_has_the_name_already_keeps_it(spool: Path, tmp_path: Path, there: str) -> None:
    claims = daemon(spool)
    drop_in(spool, "one")
    taken = spool / "failed" / "one"
    if there == "file":
        taken.write_text("a file")
    elif there == "full":
        taken.mkdir()
        (taken / "x").touch()
    else:
        (tmp_path / "empty").mkdir()
        taken.symlink_to(tmp_path / ("empty" if there == "link" else "nothing"))
    assert finish(claims, claim_one(claims)) == spool / "failed" / "one.2"
    assert os.path.lexists(taken)


def test_an_empty_directory_of_the_name_is_filled(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one")
    (spool / "failed" / "one").mkdir()
    assert finish(claims, claim_one(claims)) == spool / "failed" / "one"


@pytest.mark.parametrize(("name", "cut"), [("ü" * 127, "ü" * 126), ("b" * 255, "b" * 253), ("b" * 253, "b" * 253)])
def test_a_name_as_long_as_the_system_allows_is_cut_for_its_number(spool: Path, name: str, cut: str) -> None:
    claims = daemon(spool)
    for _ in range(2):
        drop_in(spool, f"{name}/")
        end = finish(claims, claim_one(claims))
    assert end
    assert end.name == f"{cut}.2"


def test_a_claim_that_was_lost_is_not_ended_by_its_former_owner(spool: Path) -> None:
    drop_in(spool, "one")
    there, here = daemon(spool, "theirs", host="elsewhere"), daemon(spool)
    claim = claim_one(there)
    age(claim.directory / "owner.json", OLD_S)
    [taken] = here.take_over(10)
    assert finish(there, claim) is None
    assert there.drop(claim)
    assert taken.manifest.exists()
    assert tree(spool / "failed") == set()
    assert finish(here, taken) == spool / "failed" / "one"
    assert finish(here, taken) is None


def test_links_in_a_bundle_do_not_lead_our_files_astray(spool: Path, tmp_path: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "trap/")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("result.json", "error.json", "video.mp4", ".report.part"):
        (spool / "incoming" / "trap" / name).symlink_to(victim)
    claim = claim_one(claims)
    claim.output.mkdir()
    (claim.output / "video.mp4").write_text("a video")
    end = claims.finish(claim, "done", lambda _: "report")
    assert end
    assert victim.read_text() == "precious"
    assert ((end / "result.json").read_text(), (end / "video.mp4").read_text()) == ("report", "a video")
    assert not (end / "result.json").is_symlink()


@pytest.mark.parametrize("name", ["result.json", "error.json", "video.mp4"])
def test_a_bundle_with_a_directory_in_our_way_ends_one_level_down(spool: Path, name: str) -> None:
    claims = daemon(spool)
    drop_in(spool, "odd/")
    (spool / "incoming" / "odd" / name).mkdir()
    (spool / "incoming" / "odd" / name / "full").touch()
    claim = claim_one(claims)
    claim.output.mkdir()
    (claim.output / "video.mp4").write_text("a video")
    end = claims.finish(claim, "done", lambda _: "report")
    assert end == spool / "done" / "odd"
    assert ((end / "result.json").read_text(), (end / "video.mp4").read_text()) == ("report", "a video")
    assert (end / "odd" / name / "full").exists()
    assert tree(spool / "active") == set()


def test_a_claim_whose_owner_died_amid_that_is_whole_for_the_next(spool: Path) -> None:
    drop_in(spool, "odd/")
    claim = claim_one(daemon(spool))
    (claim.directory / ".wrapper").mkdir()
    claim.files.rename(claim.directory / ".wrapper" / "odd")
    (claim.directory / ".wrapper" / "error.json").touch()
    [adopted] = daemon(spool).adopt()
    assert adopted == claim
    assert tree(claim.directory) == {"owner.json", "odd", "odd/manifest.json", "odd/a.png"}


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_what_was_made_outlives_a_death_amid_that_and_is_left_out_by_another_daemon(spool: Path, name: str) -> None:
    drop_in(spool, "odd/")
    claim = claim_one(daemon(spool, host="elsewhere"))
    claim.output.mkdir()
    (claim.output / "video.poster.jpg").write_text("a poster")
    wrapper = claim.directory / ".wrapper"
    wrapper.mkdir()
    claim.files.rename(wrapper / "odd")
    (wrapper / "result.json").write_text("the first report")
    (wrapper / "video.mp4").write_text("a video")
    made = [File(url="", file_name=each, file_size=size) for each, size in (("video.mp4", 7), ("video.poster.jpg", 8))]
    age(claim.directory / "owner.json", OLD_S)
    claims = daemon(spool, name)
    [taken] = claims.take_over(1)
    assert has_files(taken, made) is (name == "ours")
    end = claims.finish(taken, "done", lambda _: "report")
    assert end
    named = {file.file_name for file in made} if name == "ours" else set()
    assert tree(end) == {"manifest.json", "a.png", "result.json", *named}
    assert tree(spool / "active") == set()


def test_a_bundle_one_level_down_is_moved_when_that_failed_at_first(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "odd/")
    (spool / "incoming" / "odd" / "video.mp4").mkdir()
    claim = claim_one(claims)
    claim.output.mkdir()
    (claim.output / "video.mp4").write_text("a video")
    (claim.output / "video.poster.jpg").write_text("a poster")
    made = [File(url="", file_name=name, file_size=size) for name, size in (("video.mp4", 7), ("video.poster.jpg", 8))]
    (spool / "done").rename(spool / "away")
    with pytest.raises(OSError, match="No such file"):
        claims.finish(claim, "done", lambda _: "report")
    assert has_files(claim, made)
    assert not has_files(claim, [*made, made[0].model_copy(update={"file_name": "video.contact_sheet.jpg"})])
    (spool / "away").rename(spool / "done")
    end = claims.finish(claim, "done", lambda _: "report")
    assert end
    assert (end / "video.mp4").read_text() == "a video"
    assert (end / "video.poster.jpg").read_text() == "a poster"
    assert tree(end / "odd") >= {"manifest.json", "a.png", "video.mp4"}


def test_a_failed_bundle_that_is_put_back_ends_without_its_old_report(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "again/")
    end = finish(claims, claim_one(claims))
    assert end
    end.rename(spool / "incoming" / "again")
    end = claims.finish(claim_one(claims), "done", lambda _: "report")
    assert end
    assert tree(end) == {"manifest.json", "a.png", "result.json"}


def test_a_move_that_fails_keeps_the_claim_and_succeeds_later(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one")
    claim = claim_one(claims)
    (spool / "failed").rename(spool / "away")
    with pytest.raises(OSError, match="No such file"):
        finish(claims, claim)
    assert claims.is_ours(claim)
    (spool / "away").rename(spool / "failed")
    assert finish(claims, claim) == spool / "failed" / "one"


def test_a_daemon_that_stands_still_with_the_lock_does_not_hold_up_others_for_ever(
    spool: Path, other: Callable[..., Other]
) -> None:
    drop_in(spool, "one")
    claims = daemon(spool)
    claim = claim_one(claims)
    holder = other()
    holder.ask("lock")
    with pytest.raises(TimeoutError, match="stays locked"):
        finish(claims, claim)
    holder.signal(signal.SIGKILL, "Z")
    assert finish(claims, claim) == spool / "failed" / "one"


def test_a_claim_without_its_manifest_is_dropped_unless_other_files_came_with_it(spool: Path) -> None:
    claims = daemon(spool)
    drop_in(spool, "one", "two/")
    one, two = [claim for found in claims.waiting() if (claim := claims.claim(found))]
    for claim in (one, two):
        claim.manifest.unlink()
    assert claims.drop(one)
    assert not claims.drop(two)
    assert not one.directory.exists()
    assert tree(two.files) == {"a.png"}


# The directory itself.


def test_a_directory_that_is_missing_is_made(tmp_path: Path) -> None:
    daemon(tmp_path / "a" / "b")
    assert tree(tmp_path / "a" / "b") == {"incoming", "active", "done", "failed"}


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"spool\.directory: .*: (Not a directory|File exists)"):
        daemon(tmp_path / "file")


def test_a_directory_on_several_file_systems_is_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    (tmp_path / "done").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"spool\.directory: .* lie on more than one file system"):
        daemon(tmp_path)


def test_a_directory_that_is_not_writable_is_refused(reachable: Path) -> None:
    daemon(reachable)
    (reachable / "failed").chmod(0o555)
    with as_nobody(), pytest.raises(ConfigError, match=r"spool\.directory: .*failed is not writable"):
        daemon(reachable)


def test_what_we_may_not_move_is_said_and_left_where_it_is(reachable: Path) -> None:
    claims = daemon(reachable)
    drop_in(reachable, "closed/")
    (reachable / "incoming" / "closed").chmod(0o700)
    with as_nobody():
        [found] = claims.waiting()
        with pytest.raises(PermissionError):
            claims.claim(found)
    assert tree(reachable / "incoming") == {"closed", "closed/manifest.json", "closed/a.png"}
    assert tree(reachable / "active") == set()


def test_a_bundle_that_may_be_moved_but_not_entered_ends_one_level_down(reachable: Path) -> None:
    claims = daemon(reachable)
    drop_in(reachable, "shut/")
    (reachable / "incoming" / "shut").chmod(0o222)
    with as_nobody():
        end = finish(claims, claim_one(claims))
    assert end == reachable / "failed" / "shut"
    assert tree(end) == {"error.json", "shut", "shut/manifest.json", "shut/a.png"}
    assert tree(reachable / "active") == set()
