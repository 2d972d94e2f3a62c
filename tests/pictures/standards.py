"""What colour standards say, in float64 and as they are written: the judge of what `light` computes by tables."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# ITU-R BT.709-6, BT.2020-2 and SMPTE EG 432-1: red, green, blue; all of the white D65.
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
D65 = (0.3127, 0.3290)


def srgb(linear: Array) -> Array:
    """IEC 61966-2-1: coded values, 0 to 1."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_linear(coded: Array) -> Array:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def pq_eotf(signal: Array) -> Array:
    """SMPTE ST 2084, 5.2: cd/m2."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = np.power(signal, 1 / m2)
    return 10000 * np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1)


def pq_inverse(light: Array) -> Array:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = np.power(np.asarray(light) / 10000, m1)
    return np.power((c1 + c2 * power) / (1 + c3 * power), m2)


def hlg_light(signal: Array) -> Array:
    """BT.2100-2, table 5: (..., 3) RGB of BT.2020's primaries on a screen of 1000 cd/m2, in cd/m2."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ (0.2627, 0.6780, 0.0593)
    return 1000 * np.power(luminance, 0.2)[..., None] * scene


def matrix(primaries: Any, white: Any = D65) -> Array:
    """Linear R, G, B to X, Y, Z: the sums of the columns are white."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return columns * (np.linalg.inv(columns) @ (x / y, 1, (1 - x - y) / y))


def converted(linear: Array, primaries: Any) -> Array:
    """(..., 3) linear R, G, B of other primaries and D65 as BT.709's."""
    return np.maximum(linear @ (np.linalg.inv(matrix(BT709)) @ matrix(primaries)).T, 0)


def tone_mapped(light: Array) -> Array:
    """BT.2390-10, 5.4.1, from 1000 to 203 cd/m2 and black of 0, on the largest channel; 1 is white."""
    largest = np.minimum(light.max(-1, keepdims=True), 1000)
    e1 = pq_inverse(largest) / pq_inverse(1000)
    most = pq_inverse(203) / pq_inverse(1000)
    ks = 1.5 * most - 0.5
    t = (e1 - ks) / (1 - ks)
    p = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * most
    mapped = pq_eotf(np.where(e1 < ks, e1, p) * pq_inverse(1000))
    peak = light.max(-1, keepdims=True)
    return light * np.where(peak > 0, mapped / np.where(peak > 0, peak, 1), 1) / 203


def shown_pq(signal: Array, primaries: Any = BT2020) -> Array:
    """PQ's R, G, B as what sRGB shows, 0 to 255."""
    return 255 * srgb(tone_mapped(converted(pq_eotf(signal), primaries)))


def shown_hlg(signal: Array) -> Array:
    return 255 * srgb(tone_mapped(converted(hlg_light(signal), BT2020)))


def shown_p3(coded: Array) -> Array:
    """Display P3's R, G, B as what sRGB shows, 0 to 255."""
    return 255 * srgb(converted(srgb_linear(coded), P3))
