"""Samples that were coded for other screens than sRGB's: curves, primaries, and the tone mapping of HDR stills.

A file states its curve and primaries in code points (ITU-T H.273: PNG's cICP, the nclx box of AVIF and HEIC), or in
PNG's gAMA and cHRM. The samples become linear light with the primaries of BT.709, and then sRGB (IEC 61966-2-1). The
curves of BT.601, BT.709 and BT.2020 are treated as sRGB's, as in browsers: they describe what cameras write, while
screens show all of them with one curve.

PQ and HLG (ITU-R BT.2100-2) are tone mapped by the EETF of ITU-R BT.2390-10, 5.4.1, from 1000 cd/m2 to the 203 cd/m2
of HDR reference white (ITU-R BT.2408-7, table 1), on the largest of R, G and B, so that hues do not change. Up to 92
cd/m2 nothing changes, reference white becomes 230 of 255, and 1000 cd/m2 or more become white. The peak is the same for
all stills and their own metadata is ignored, because a time-lapse would flicker otherwise.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Point = tuple[float, float]
Primaries = tuple[Point, Point, Point, Point]  # CIE 1931 x, y of red, green, blue and white
Curve = Literal["sRGB", "linear", "PQ", "HLG"] | float  # a number is the exponent of a power curve

_D65: Final = (0.3127, 0.3290)
BT709: Final[Primaries] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
# ITU-T H.273, table 2; 2 is unspecified.
_PRIMARIES: Final[dict[int, Primaries]] = {
    1: BT709, 2: BT709,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}  # fmt: skip
# ITU-T H.273, table 3.
_CURVES: Final[dict[int, Curve]] = {
    1: "sRGB", 2: "sRGB", 4: 2.2, 5: 2.8, 6: "sRGB", 8: "linear", 13: "sRGB", 14: "sRGB", 15: "sRGB", 16: "PQ",
    18: "HLG",
}  # fmt: skip

_REFERENCE_WHITE, _PEAK = 203.0, 1000.0  # cd/m2
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_STEPS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Coding:
    """How samples represent light.

    Attributes:
        is_limited: whether black is 16 and white is 235 of 255, or the same fractions of more bits.
    """

    curve: Curve = "sRGB"
    primaries: Primaries = BT709
    is_limited: bool = False

    @property
    def is_hdr(self) -> bool:
        return self.curve in ("PQ", "HLG")

    @property
    def is_srgb(self) -> bool:
        """Whether these samples are sRGB already and need no conversion."""
        return self == Coding()


def coding_of(primaries: int, transfer: int, *, is_limited: bool = False) -> Coding | None:
    """Return the coding for two code points of ITU-T H.273, or None if one of them is not supported."""
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        return None
    return Coding(_CURVES[transfer], _PRIMARIES[primaries], is_limited)


def is_triangle(primaries: Primaries) -> bool:
    """Whether primaries are usable: they form a triangle, and white is inside it.

    They need not be real colours: the blue of ACES has a negative y.
    """
    points = np.array(primaries)
    if not (np.abs(points) <= 2).all() or (np.abs(points[:, 1]) < 1e-4).any():
        return False
    red, green, blue, white = (np.array([x, y, 1 - x - y]) for x, y in primaries)
    columns = np.stack([red, green, blue], 1)
    return bool(abs(np.linalg.det(columns)) > 1e-3 and (np.linalg.solve(columns, white) > 0).all())


def to_srgb(samples: Values, coding: Coding) -> npt.NDArray[np.uint8]:
    """Convert samples to sRGB.

    Args:
        samples: (H, W, 3) BGR; uint8 or uint16 (full scale), or floats, which are linear light.
    """
    if samples.dtype.kind == "f":
        linear = np.nan_to_num(samples.astype(np.float32))
    else:
        linear = np.take(_linear_table(coding, samples.dtype.itemsize * 8), samples)
    if coding.curve == "HLG":
        linear *= _system_gamma(linear, coding.primaries)
    if coding.primaries != BT709:
        linear = linear @ _to_bt709(coding.primaries)
    np.maximum(linear, 0, out=linear)
    if coding.is_hdr:
        largest = linear.max(-1, keepdims=True) * np.float32(_REFERENCE_WHITE / _PEAK)
        linear *= np.take(_gain_table(), _steps(np.sqrt(largest))) / np.maximum(largest, 1)
    return np.take(_srgb_table(), _steps(linear))


def _steps(values: Values) -> npt.NDArray[np.uint16]:
    return np.asarray(np.rint(np.clip(values, 0, 1) * (_STEPS - 1)), np.uint16)


@lru_cache(maxsize=16)
def _linear_table(coding: Coding, bits: int) -> npt.NDArray[np.float32]:
    """Return the linear light of every sample value; 1 is white, and in HDR the reference white."""
    most = (1 << bits) - 1
    values = np.arange(most + 1) / most
    if coding.is_limited:
        scale = 1 << (bits - 8)
        values = np.clip((np.arange(most + 1) - 16 * scale) / (219 * scale), 0, 1)
    return _decoded(values, coding.curve).astype(np.float32)


def _decoded(values: Values, curve: Curve) -> Values:
    if curve == "linear":
        return values
    if curve == "sRGB":
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if curve == "PQ":
        return pq_light(values) / _REFERENCE_WHITE
    if curve == "HLG":
        return _hlg_scene_light(values) * (_PEAK / _REFERENCE_WHITE)
    return values**curve


def pq_light(signal: Values) -> Values:
    """Return the light of a signal in cd/m2, by the EOTF of PQ (BT.2100-2, table 4)."""
    power = signal ** (1 / _M2)
    return 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def pq_signal(light: Values) -> Values:
    """Return the signal for light in cd/m2, by the inverse EOTF of PQ (BT.2100-2, table 4)."""
    power = (light / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _hlg_scene_light(signal: Values) -> Values:
    """Return the scene light of a signal, 0 to 1, by the inverse OETF of HLG (BT.2100-2, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _system_gamma(linear: Values, primaries: Primaries) -> Values:
    """Return the factor of HLG's OOTF for a screen of 1000 cd/m2, luminance ** 0.2 (BT.2100-2, table 5)."""
    weights = _to_xyz(primaries)[1, ::-1].astype(np.float32)
    luminance = (linear @ weights)[..., None] * np.float32(_REFERENCE_WHITE / _PEAK)
    return np.asarray(np.maximum(luminance, 0) ** np.float32(0.2))


@lru_cache(maxsize=1)
def _gain_table() -> npt.NDArray[np.float32]:
    """Return the factors of the tone mapping, indexed by the square root of light; 1 is the peak."""
    light = np.linspace(0, 1, _STEPS) ** 2 * _PEAK
    top, most = (float(pq_signal(np.array(value))) for value in (_PEAK, _REFERENCE_WHITE))
    signal, most = pq_signal(light) / top, most / top
    knee = 1.5 * most - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    mapped = pq_light(np.where(signal < knee, signal, spline) * top)
    gain = np.ones(_STEPS)
    gain[1:] = mapped[1:] / light[1:]
    return gain.astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> npt.NDArray[np.uint8]:
    linear = np.linspace(0, 1, _STEPS)
    coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(coded * 255), np.uint8)


@lru_cache(maxsize=16)
def _to_bt709(primaries: Primaries) -> npt.NDArray[np.float32]:
    """Return the matrix to multiply rows of linear B, G, R with; a different white is adapted by Bradford's method."""
    white, other = (_xyz(each[3]) for each in (BT709, primaries))
    cones = np.diag((_BRADFORD @ white) / (_BRADFORD @ other))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD
    matrix = np.linalg.inv(_to_xyz(BT709)) @ adapted @ _to_xyz(primaries)
    return np.ascontiguousarray(matrix[::-1, ::-1].T, np.float32)


def _to_xyz(primaries: Primaries) -> Values:
    """Return the matrix from linear R, G, B to CIE X, Y, Z (SMPTE RP 177, 3.3)."""
    columns = np.stack([_xyz(point) for point in primaries[:3]], 1)
    return columns * np.linalg.solve(columns, _xyz(primaries[3]))


def _xyz(point: Point) -> Values:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])
