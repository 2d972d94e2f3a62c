"""Real streams from libx264, and two decoders that know nothing of each other as judges."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from hashlib import blake2b

import av
import av.logging
import imageio_ffmpeg
import numpy as np
import pytest

from renderer.encode.h264.bits import BitReader, BitWriter, NalType, escape, join_nals, nal_type, split_nals, unescape

Size = tuple[int, int]

_SLICES = (NalType.SLICE, NalType.IDR_SLICE)
# Every third picture is another image, and the two after it are that image moved on: x264 makes IDR, I and P of them.
MIXED_TYPES = "keyint=12:min-keyint=7:scenecut=100:rc-lookahead=0:bframes=0:ref=1"


@pytest.fixture(scope="session")
def mixed_types() -> str:
    return MIXED_TYPES


@pytest.fixture(scope="session")
def encode() -> Callable[..., list[bytes]]:
    """Encode stills with libx264: options, size, count, noise in; access units out."""
    return _encode


@pytest.fixture(scope="session")
def decode() -> Callable[[bytes], list[bytes]]:
    """Decode with FFmpeg, which must find nothing to complain of, into one digest a frame."""
    return _decode


@pytest.fixture(scope="session")
def openh264() -> Callable[[bytes, Size], list[bytes]]:
    """Decode with OpenH264 into one digest a frame, equal to FFmpeg's where the frames are."""
    require("openh264")
    return _decode_openh264


@pytest.fixture(scope="session")
def reshaped() -> Callable[..., list[bytes]]:
    """Rewrite the headers of x264's streams into shapes that x264 does not give."""
    return _reshaped


def require(tool: str) -> None:
    """Skip the test where a tool is missing, or fail it where REQUIRE promises the tool."""
    is_there = {"openh264": _has_openh264}[tool]()
    if not is_there and tool in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE names {tool}, but it is missing")
    if not is_there:
        pytest.skip(f"{tool} is missing (Debian: gstreamer1.0-tools, gstreamer1.0-plugins-bad)")


def _has_openh264() -> bool:
    inspect = shutil.which("gst-inspect-1.0")
    return bool(inspect) and subprocess.run([inspect, "--exists", "openh264dec"], check=False).returncode == 0


@cache
def _encode(options: str, size: Size = (64, 48), count: int = 18, noise: int = 0) -> list[bytes]:
    width, height = size
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-r", "25"]
    command += ["-s", f"{width}x{height}", "-i", "-", "-c:v", "libx264", "-x264-params", options, "-f", "h264", "-"]
    pictures = _pictures(size, count, noise)
    return _access_units(subprocess.run(command, input=pictures, capture_output=True, check=True).stdout)


def _pictures(size: Size, count: int, noise: int) -> bytes:
    """Return I420 pictures of squares that move, another image every third picture."""
    width, height = size
    chance = np.random.default_rng(7)
    planes = []
    for index in range(count):
        if index % 3 == 0:
            squares = chance.integers(0, 256 - noise, (height // 8 + 2, width // 8 + 2), dtype=np.uint8)
            image = squares.repeat(8, 0).repeat(8, 1)[:height, :width]
            colours = chance.integers(0, 256, (2,), dtype=np.uint8).repeat(width // 2 * (height // 2))
        luma = np.roll(image, index, 1) + chance.integers(0, noise + 1, (height, width), dtype=np.uint8)
        planes += [luma.tobytes(), colours.tobytes()]
    return b"".join(planes)


def _access_units(stream: bytes) -> list[bytes]:
    """Split by 7.4.1.2.3, as far as x264 needs it: what stands before a first slice belongs to it."""
    units: list[list[bytes]] = [[]]
    for nal in split_nals(stream):
        has_slice = any(nal_type(other) in _SLICES for other in units[-1])
        is_first_slice = nal_type(nal) in _SLICES and nal[1] & 0x80
        if has_slice and (is_first_slice or nal_type(nal) not in _SLICES):
            units.append([])
        units[-1].append(nal)
    return [join_nals(unit) for unit in units]


def _decode(stream: bytes) -> list[bytes]:
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(local=False) as complaints, av.open(io.BytesIO(stream), format="h264") as container:
            digests = [_digest(frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]
    finally:
        av.logging.set_level(level)
    assert complaints == []
    return digests


def _decode_openh264(stream: bytes, size: Size) -> list[bytes]:
    command = ["gst-launch-1.0", "-q", "fdsrc", "!", "h264parse", "!", "openh264dec", "!", "fdsink"]
    run = subprocess.run(command, input=stream, capture_output=True, check=True)
    assert run.stderr == b""
    # GStreamer pads the rows of I420 to four bytes.
    width, height = size
    luma, chroma = -(-width // 4) * 4, -(-width // 8) * 4
    frames = np.frombuffer(run.stdout, np.uint8).reshape(-1, (luma + chroma) * height)
    digests = []
    for frame in frames:
        rows = frame[: luma * height].reshape(height, luma)[:, :width]
        planes = frame[luma * height :].reshape(height, chroma)[:, : width // 2]
        digests.append(_digest(rows.tobytes() + planes.tobytes()))
    return digests


def _digest(frame: bytes) -> bytes:
    return blake2b(frame, digest_size=16).digest()


def _reshaped(units: list[bytes], *, poc_lsb_width: int = 0, max_num_ref_frames: int = 1) -> list[bytes]:
    """Say picture order count type 0 instead of 2 (x264 has it for B pictures only), or more reference frames.

    `poc_lsb_width` must be 8 or 16, so that slice data stays aligned.
    """
    reshaped = []
    poc_lsb = 0
    frame_num_width = 0
    for unit in units:
        nals = []
        poc_lsb += 2
        for nal in split_nals(unit):
            if nal_type(nal) == NalType.SPS:
                rewritten, frame_num_width = _with_shape(nal, poc_lsb_width, max_num_ref_frames)
            elif nal_type(nal) in _SLICES and poc_lsb_width:
                poc_lsb = 0 if nal_type(nal) == NalType.IDR_SLICE else poc_lsb
                rewritten = _with_poc_lsb(nal, frame_num_width, poc_lsb % (1 << poc_lsb_width), poc_lsb_width)
            else:
                rewritten = nal
            nals.append(rewritten)
        reshaped.append(join_nals(nals))
    return reshaped


def _with_shape(nal: bytes, poc_lsb_width: int, max_num_ref_frames: int) -> tuple[bytes, int]:
    """Rewrite an SPS of x264 that has POC type 2 and no scaling matrix; return it and its frame_num's width."""
    bits = BitReader(unescape(nal))
    bits.u(8)
    profile_idc = bits.u(8)
    bits.u(16)
    bits.ue()
    if profile_idc >= 100:
        assert (bits.ue(), bits.ue(), bits.ue(), bits.u(2)) == (1, 0, 0, 0)
    frame_num_width = bits.ue() + 4
    start = bits.position
    assert bits.ue() == 2
    bits.ue()
    stop = bits.position
    middle = BitWriter()
    middle.ue(0 if poc_lsb_width else 2)
    if poc_lsb_width:
        middle.ue(poc_lsb_width - 4)
    middle.ue(max_num_ref_frames)
    return _spliced(unescape(nal), start, middle, stop), frame_num_width


def _with_poc_lsb(nal: bytes, frame_num_width: int, poc_lsb: int, width: int) -> bytes:
    bits = BitReader(unescape(nal))
    bits.u(8)
    for _ in range(3):
        bits.ue()
    bits.u(frame_num_width)
    if nal_type(nal) == NalType.IDR_SLICE:
        bits.ue()
    middle = BitWriter()
    middle.u(width, poc_lsb)
    return _spliced(unescape(nal), bits.position, middle, bits.position)


def _spliced(unescaped: bytes, start: int, middle: BitWriter, stop: int) -> bytes:
    """Put other bits between two positions and end with a stop bit again."""
    everything = bin(int.from_bytes(b"\1" + unescaped, "big"))[3:]
    text = everything[:start] + bin(1 << middle.position | middle.value)[3:] + everything[stop:].rstrip("0")
    text += "0" * (-len(text) % 8)
    return escape(int(text, 2).to_bytes(len(text) // 8, "big"))
