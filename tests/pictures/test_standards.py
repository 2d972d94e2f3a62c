"""The formulas that judge our colours are themselves judged by zimg, through ffmpeg's zscale."""

import subprocess

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from tests.pictures import standards
from tests.pictures.matrix import HEIGHT, WIDTH, gradient, mild


def zscaled(rgb: npt.NDArray[np.float64], options: str) -> npt.NDArray[np.float64]:
    """Convert R, G, B of 0 to 1 by zscale, in 16 bits in and floats out."""
    graph = f"format=gbrp16le,zscale=min=gbr:rin=full:m=gbr:r=full:{options},format=gbrpf32le"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{WIDTH}x{HEIGHT}", "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *given, "-vf", graph, "-f", "rawvideo", "-"]
    body = np.rint(rgb * 65535).astype("<u2").tobytes()
    raw = subprocess.run(command, input=body, capture_output=True, check=True, timeout=60).stdout
    green, blue, red = np.frombuffer(raw, "<f4").reshape(3, HEIGHT, WIDTH).astype(float)
    return np.dstack([red, green, blue])


def test_display_p3_is_what_zimg_makes_of_it() -> None:
    found = zscaled(gradient(), "pin=smpte432:tin=iec61966-2-1:p=bt709:t=iec61966-2-1")
    assert np.abs(np.clip(found, 0, 1) * 255 - standards.shown_p3(gradient())).max() < 0.1


def test_the_light_of_pq_is_what_zimg_makes_of_it() -> None:
    found = zscaled(mild(), "pin=bt2020:tin=smpte2084:p=bt709:t=linear:npl=203")
    light = standards.converted(standards.pq_eotf(mild()), standards.BT2020)
    assert np.abs(found * 203 / light - 1).max() < 0.01
