import pytest

from renderer.encode.h264.bits import NalType, split_nals, unescape
from renderer.encode.h264.parameter_sets import parse_pps, parse_sps
from renderer.encode.h264.skipped import _RANGE_LPS, skipped_picture
from renderer.encode.h264.syntax import P_SLICE, ParameterSets


def test_the_interval_table_follows_the_law_that_it_was_made_by():
    """State s has the probability 0.5 a^s with a^63 = 0.0375; each quarter of the interval stands for its middle."""
    alpha = 0.0375 ** (1 / 63)
    for state in range(5, 63):  # the first states are bounded, so that a more probable symbol costs one shift at most
        law = [0.5 * alpha**state * middle for middle in (288, 352, 416, 480)]
        assert list(_RANGE_LPS[4 * state : 4 * state + 4]) == pytest.approx(law, abs=0.8)
    assert _RANGE_LPS[4 * 63 :] == (2, 2, 2, 2)


@pytest.mark.parametrize("options", ["", "cabac=0", "weightp=0", "slices=4"])
def test_a_repeat_is_one_small_slice_with_one_reference(encode, mixed_types, options):
    sps_nal, pps_nal, *_ = split_nals(encode(f"{mixed_types}:{options}")[0])
    sets = ParameterSets()
    sets.take(sps_nal)
    sets.take(pps_nal)
    unit = skipped_picture(parse_sps(sps_nal), parse_pps(pps_nal)).access_unit(frame_num=16 + 9, poc_lsb=0)
    (nal,) = split_nals(unit)
    header = sets.slice_header(unescape(nal))
    assert nal[0] == 1 << 5 | NalType.SLICE
    assert (header.first_mb, header.slice_type, header.num_ref_idx_active) == (0, P_SLICE, (1, 0))
    assert header.frame_num.value == 9  # modulo 16
    assert not header.modifies_ref_lists
    assert not header.marking
    assert header.disable_deblocking_idc == 1
    assert len(unit) < 20
