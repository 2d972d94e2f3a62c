"""The stand-in, asked by the real wheel: does it catch what it is there to catch?"""

import subprocess
import sys

import pytest

from tests.nvenc_standin.process import Standin

CASES = "tests.nvenc_standin.cases"
SHADES = [40 + 7 * index for index in range(20)]


@pytest.mark.parametrize(("api", "variant"), [(208, "130"), (193, "121")])
def test_both_variants_of_the_wheel_encode(standin: Standin, api: int, variant: str) -> None:
    found = standin.ask(CASES, "sixty_pictures", knobs={"nvenc_api": api})
    assert found["variant"] == variant
    assert found["types"] == "K" + 7 * "P" + "K" + 11 * "P"
    assert found["stamps"] == list(range(20))
    assert found["shades"] == pytest.approx(SHADES, abs=2)


def test_a_driver_that_is_too_old_stops_the_import(standin: Standin) -> None:
    with pytest.raises(AssertionError, match="Driver version is too old"):
        standin.ask(CASES, "sixty_pictures", knobs={"nvenc_api": 177})


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [({}, (2, 3)), ({"poc_type": 0}, (0, 3)), ({"refs": 4}, (2, 4)), ({"poc_type": 0, "refs": 1, "l0": 1}, (0, 1))],
    ids=str,
)
def test_picture_order_and_references_are_as_asked(standin: Standin, knobs, expected) -> None:
    found = standin.ask(CASES, "sixty_pictures", knobs=knobs)
    assert (found["poc_type"], found["references"]) == expected
    assert found["shades"] == pytest.approx(SHADES, abs=2)


@pytest.mark.parametrize(
    ("knobs", "kept", "code"),
    [
        ({"no_encoder": 1}, 0, 2),
        ({"max_sessions": 2}, 2, 21),
        ({"max_sessions": 2, "session_code": 10}, 2, 10),
        ({"fail_after": 5}, 0, 20),
        ({"fail": "nvEncLockBitstream@1=8"}, 0, 8),
    ],
    ids=str,
)
def test_a_failure_has_the_code_that_was_asked_for(standin: Standin, knobs, kept: int, code: int) -> None:
    assert f"Error code : {code}\n" in standin.ask(CASES, "error_text", knobs=knobs, kept=kept)


def test_a_buffer_that_is_reused_too_soon_shows(standin: Standin) -> None:
    assert standin.ask(CASES, "pinned", knobs={"late": 1}, buffers=1) != pytest.approx(SHADES, abs=2)
    assert standin.ask(CASES, "pinned", knobs={"late": 1}, buffers=5) == pytest.approx(SHADES, abs=2)
    assert standin.total("h2d_pinned_bytes") == 40 * 320 * 240 * 3 // 2
    assert standin.total("h2d_pageable_bytes") == 0


def test_sessions_are_counted_over_processes_and_end_with_theirs(standin: Standin) -> None:
    seats = standin.seats(1)
    holding = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tests.nvenc_standin.cases import *; e = encoder(); print('open', flush=True); input()",
        ],
        env=standin(**seats),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"open\n"
        assert "Error code : 21\n" in standin.ask(CASES, "error_text", knobs=seats)
        holding.kill()
    assert standin.ask(CASES, "error_text", knobs=seats) == ""
    assert [what for what, _ in standin.journal()].count("refused") == 1
