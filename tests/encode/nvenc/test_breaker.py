"""A device that failed is left alone, then tried again by one."""

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from renderer.encode.nvenc.breaker import Breaker
from renderer.work import NvencDevice

DEVICE = NvencDevice("GPU-1", "L4")


class Machine:
    """A clock, and a device that fails or not, which counts how often it is tried."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1000.0
        self.fault: str | None = None
        self.tries = 0
        self.device = DEVICE
        self.breaker = Breaker(directory, 60, self.attempt, lambda: self.now_s)

    def attempt(self, device: NvencDevice) -> str | None:
        assert device == self.device
        self.tries += 1
        return self.fault


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_device_that_never_failed_is_not_tried(machine: Machine) -> None:
    assert machine.breaker.refusal(DEVICE) is None
    assert machine.tries == 0


def test_a_device_that_failed_is_left_alone_for_the_pause(machine: Machine) -> None:
    machine.breaker.trip("GPU-1", "L4 failed")
    machine.now_s += 20
    assert machine.breaker.refusal(DEVICE) == "L4 failed; the GPU is tried again in 40 s"
    assert machine.tries == 0
    assert machine.breaker.refusal(NvencDevice("GPU-2", "L4")) is None


def test_after_the_pause_it_is_tried_and_used_again(machine: Machine) -> None:
    machine.breaker.trip("GPU-1", "L4 failed")
    machine.now_s += 61
    assert [machine.breaker.refusal(DEVICE) for _ in range(3)] == [None] * 3
    assert machine.tries == 1


def test_the_pause_doubles_while_it_fails(machine: Machine) -> None:
    machine.fault = "L4 is broken"
    machine.breaker.trip("GPU-1", "L4 failed")
    for pause_s in (60, 120, 240):
        machine.now_s += pause_s - 1
        before = machine.tries
        assert machine.breaker.refusal(DEVICE)
        assert machine.tries == before
        machine.now_s += 2
        assert machine.breaker.refusal(DEVICE) == "L4 is broken"
        assert machine.tries == before + 1
        machine.now_s -= 1


def test_the_pause_has_an_end(machine: Machine) -> None:
    for _ in range(100):
        machine.breaker.trip("GPU-1", "L4 failed")
    machine.now_s += 60 * 2**9 + 1
    assert machine.breaker.refusal(DEVICE) is None


def test_only_one_process_tries(machine: Machine, tmp_path: Path) -> None:
    machine.breaker.trip("GPU-1", "L4 failed")
    machine.now_s += 61
    with (tmp_path / "GPU-1.failed").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert machine.breaker.refusal(DEVICE) == "L4 failed; the GPU is being tried again"
    assert machine.tries == 0


def test_a_clock_that_was_set_back_does_not_shut_the_device_out(machine: Machine) -> None:
    machine.breaker.trip("GPU-1", "L4 failed")
    machine.now_s -= 10_000
    assert machine.breaker.refusal(DEVICE) is None


def test_a_device_that_refused_the_probe_is_tried_after_the_pause_and_then_used(machine: Machine) -> None:
    refused = replace(DEVICE, reason="L4: the driver refuses")
    machine.device = refused
    assert machine.breaker.refusal(refused) == "L4: the driver refuses; the GPU is tried again in 60 s"
    machine.now_s += 59
    assert machine.breaker.refusal(refused) == "L4: the driver refuses; the GPU is tried again in 1 s"
    assert machine.tries == 0
    machine.now_s += 2
    assert [machine.breaker.refusal(refused) for _ in range(3)] == [None] * 3
    assert machine.tries == 1


def test_a_device_whose_sessions_were_taken_is_not_left_alone(machine: Machine) -> None:
    assert machine.breaker.refusal(replace(DEVICE, reason="L4: all taken", is_busy=True)) is None


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"at_s": "x"}', "\0"], ids=repr)
def test_a_damaged_record_is_none(machine: Machine, tmp_path: Path, damage: str) -> None:
    (tmp_path / "GPU-1.failed").write_text(damage)
    assert machine.breaker.refusal(DEVICE) is None
