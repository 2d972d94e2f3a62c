"""Levels of H.264: Table A-1 and what it bounds (A.3.1).

A decoder may refuse a stream whose level is too low for its pictures, or show it late; encoders choose one from the
rate that they are given.
"""

from fractions import Fraction
from typing import Final, NamedTuple

from renderer.encode.h264.parameter_sets import Sps


class Level(NamedTuple):
    """What a level allows, in macroblocks: a second, a picture, and all pictures that a decoder keeps."""

    a_second: int
    a_picture: int
    kept: int


_B: Final = 9  # level_idc of level 1b, or 11 with a flag in the older profiles
LEVELS: Final = {
    10: Level(1485, 99, 396),
    _B: Level(1485, 99, 396),
    11: Level(3000, 396, 900),
    12: Level(6000, 396, 2376),
    13: Level(11_880, 396, 2376),
    20: Level(11_880, 396, 2376),
    21: Level(19_800, 792, 4752),
    22: Level(20_250, 1620, 8100),
    30: Level(40_500, 1620, 8100),
    31: Level(108_000, 3600, 18_000),
    32: Level(216_000, 5120, 20_480),
    40: Level(245_760, 8192, 32_768),
    41: Level(245_760, 8192, 32_768),
    42: Level(522_240, 8704, 34_816),
    50: Level(589_824, 22_080, 110_400),
    51: Level(983_040, 36_864, 184_320),
    52: Level(2_073_600, 36_864, 184_320),
    60: Level(4_177_920, 139_264, 696_320),
    61: Level(8_355_840, 139_264, 696_320),
    62: Level(16_711_680, 139_264, 696_320),
}


def least_level(sps: Sps, fps: Fraction) -> int:
    """Return the lowest level_idc that allows these pictures at this rate; the highest where none does."""
    size = sps.frame.size_in_mbs
    longest = max(sps.frame.width_in_mbs, sps.frame.height_in_mbs)
    for level_idc, level in LEVELS.items():
        is_small = size <= level.a_picture and longest**2 <= 8 * level.a_picture
        if is_small and size * fps <= level.a_second and size * max(1, sps.max_num_ref_frames) <= level.kept:
            return level_idc
    return max(LEVELS)


def most_kept(sps: Sps) -> int:
    """Return how many pictures a decoder of the stream's level keeps."""
    level = LEVELS.get(sps.level_idc, LEVELS[max(LEVELS)])
    return min(level.kept // sps.frame.size_in_mbs, 16)
