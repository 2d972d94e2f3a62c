"""The plan of a stream, as a table: what goes in, which stills are IDR, where sync samples and copies stand."""

import math
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.schema import Preset
from renderer.encode.plan import plan_stream
from renderer.timeline import Timeline

IDR, ANY = True, False


def planned(holds, pictures, interval, preset="veryfast", fps=400):
    """At 400 fps by default, so that few holds last a second."""
    return plan_stream(Timeline(Fraction(fps), tuple(holds)), pictures, interval, preset)


@pytest.mark.parametrize(
    ("holds", "interval", "idr", "sync_every"),
    [
        ([24], 240, [IDR], [None]),
        ([24, 24, 24], 240, [IDR, ANY, ANY], [None] * 3),
        ([120, 120, 1, 120], 240, [IDR, ANY, IDR, ANY], [None] * 4),
        ([100, 100, 100, 100], 240, [IDR, ANY, IDR, ANY], [None] * 4),
        ([241], 240, [IDR], [240]),
        ([10, 1000, 10], 240, [IDR, IDR, ANY], [None, 240, None]),
        ([10, 1000, 210], 240, [IDR, IDR, IDR], [None, 240, None]),
        ([2, 2, 2, 2], 2, [IDR, IDR, IDR, IDR], [None] * 4),
        ([3, 3], 1, [IDR, IDR], [1, 1]),
    ],
)
def test_sync_samples_stand_no_further_apart_than_the_interval(holds, interval, idr, sync_every):
    plan = planned(holds, range(len(holds)), interval)
    assert plan.is_held
    assert [still.is_idr for still in plan.stills] == idr
    assert [still.sync_every for still in plan.stills] == sync_every


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(1, 300))
def test_no_gap_between_sync_samples_is_longer_than_the_interval(holds, interval):
    plan = planned(holds, range(len(holds)), interval)
    if not plan.is_held:
        return
    frame, syncs = 0, []
    for still in plan.stills:
        if still.is_idr:
            syncs += range(frame, frame + still.hold, still.sync_every or still.hold)
        frame += still.hold
    assert syncs[0] == 0
    assert all(after - before <= interval for before, after in zip(syncs, [*syncs[1:], frame], strict=True))


@pytest.mark.parametrize(
    ("fps", "holds", "idr"),
    [
        (24, [24, 24, 48], [IDR, IDR, IDR]),
        (24, [23, 23, 24, 2], [IDR, ANY, IDR, ANY]),
        (Fraction(30000, 1001), [29, 29, 30, 30], [IDR, ANY, IDR, IDR]),
        (24, [2, 2, 4, 4], [IDR, ANY, ANY, ANY]),
    ],
)
def test_a_still_held_for_a_second_is_an_idr(fps, holds, idr):
    plan = planned(holds, range(len(holds)), 2400, fps=fps)
    assert [still.is_idr for still in plan.stills] == idr


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        ([1, 1, 1], "no still is held for more than one frame"),
        ([1], "no still is held for more than one frame"),
        ([1] * 9 + [2], "few frames repeat"),
    ],
)
def test_streams_that_hold_nothing_use_the_encoders_full_strength(holds, reason):
    plan = planned(holds, range(len(holds)), 240)
    assert not plan.is_held
    assert plan.encoded_reason == reason
    assert [still.hold for still in plan.stills] == holds


@pytest.mark.parametrize(
    ("hold", "preset", "offset"),
    [
        (1, "veryfast", 0),
        (2, "veryfast", -2),
        (4, "medium", -4),
        (10, "veryfast", -2 * math.log2(10)),
        (240, "veryfast", -2 * math.log2(10)),
        (24, "medium", -2 * math.log2(24)),
        (240, "medium", -2 * math.log2(40)),
        (240, "slower", -2 * math.log2(60)),
        (1, "ultrafast", 0),
        (5, "ultrafast", -6),
        (240, "ultrafast", -12),
        (18, "superfast", -7),
        (240, "superfast", -14),
    ],
)
def test_a_longer_hold_is_quantised_finer(hold, preset, offset):
    plan = planned([hold, 24], "ab", 300, preset)
    assert not all(still.is_idr for still in plan.stills)
    assert plan.stills[0].quantiser_offset == pytest.approx(offset)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_is_finer_the_longer_the_hold(preset):
    offsets = [planned([hold, 24], "ab", 300, preset).stills[0].quantiser_offset for hold in (1, 2, 4, 9)]
    assert offsets == sorted(set(offsets), reverse=True)


@pytest.mark.parametrize(("preset", "steps"), [("veryfast", 2 * math.log2(10)), ("ultrafast", 12)])
def test_a_stream_of_idrs_gets_what_an_i_picture_among_others_would(preset, steps):
    plan = planned([24, 24], "ab", 240, preset, fps=24)
    assert [still.quantiser_offset for still in plan.stills] == [pytest.approx(-steps - 2.9126, abs=1e-4)] * 2


@pytest.mark.parametrize(
    ("holds", "pictures", "copies"),
    [
        ([48, 48, 48], "aba", [None, None, 0]),
        ([48, 48, 48, 48], "aaab", [None, 0, 0, None]),
        ([48, 48, 48], "abc", [None, None, None]),
        ([200, 200, 200], "aaa", [None, 0, 0]),
        ([10, 10, 10], "aba", [None, None, None]),  # the third is no IDR
        ([48, 24, 48, 10], "abab", [None, None, None, None]),  # what follows would refer to what was not coded
    ],
)
def test_a_picture_that_comes_again_as_an_idr_is_not_coded_again(holds, pictures, copies):
    interval = 240 if min(holds) < 24 else 48
    plan = planned(holds, pictures, interval)
    assert [still.copy_of for still in plan.stills] == copies
