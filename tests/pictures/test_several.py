"""Files that hold more than the one picture that is shown: which are told of, and which are nobody's concern."""

import io
import re
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from renderer.config import FetchSettings, RequestLimits
from renderer.encode.null import NullEncoder
from renderer.errors import UnsupportedFormat
from renderer.intake import Origin, parse_request, render_job
from renderer.pictures.header import read_header
from renderer.pipeline import render

STILLS = [Image.new("RGB", (64, 64), (level, 0, 0)) for level in (40, 120, 200)]


def saved(name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    STILLS[0].save(stream, name, **options)
    return stream.getvalue()


def several(name: str) -> bytes:
    return saved(name, save_all=True, append_images=STILLS[1:])


def heic(count: int = 1) -> bytes:
    file, stream = pillow_heif.from_pillow(STILLS[0]), io.BytesIO()
    for still in STILLS[1:count]:
        file.add_from_pillow(still)
    file.save(stream)
    return stream.getvalue()


def boxes(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at < len(data):
        (size, kind) = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at : at + size]
        at += size
    return found


def heic_sequence() -> bytes:
    """Return a track of HEVC pictures under a sequence's brand, without a still."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("libx265", rate=10)
        track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
        track.codec_context.codec_tag = "hvc1"
        track.options = {"x265-params": "log-level=none"}
        for still in STILLS:
            container.mux(track.encode(av.VideoFrame.from_image(still)))
        container.mux(track.encode())
    data = stream.getvalue().replace(b"vide", b"pict", 1)
    head = len(boxes(data)[b"ftyp"])
    return struct.pack(">I", head) + b"ftyphevc\0\0\0\0msf1hevc".ljust(head - 4, b"\0") + data[head:]


def mpo(kind: int) -> bytes:
    """Return two JPEGs in one file, the second of a kind as CIPA DC-007 numbers them."""
    first = rb"(\0\0\x03\0.{4}\0{4}\0{4})\0{4}"  # its kind, its length, no place, none that depends on it
    return re.sub(first, lambda match: match[1] + struct.pack("<I", kind), several("MPO"), count=1, flags=re.DOTALL)


def pages(*subfile_types: int, level: int = 90, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, **options) as file:
        for kind in subfile_types:
            file.write(np.full((8, 8), level, np.uint8), subfiletype=kind, metadata=None, contiguous=False)
    return stream.getvalue()


def following_nowhere(data: bytes) -> bytes:
    """Let the next directory begin beyond the file's end."""
    (count,) = struct.unpack_from("<H", data, 8)
    at = 10 + 12 * count
    return data[:at] + struct.pack("<I", 1 << 30) + data[at + 4 :]


def pgm(count: int) -> bytes:
    return b"".join(b"P5 2 2 255\n" + bytes([level] * 4) for level in range(count))


@pytest.mark.parametrize(
    ("data", "more"),
    [
        (heic() + boxes(heic_sequence())[b"moov"], "frames"),
        (several("AVIF"), "frames"),
        (several("GIF"), "frames"),
        (several("PNG"), "frames"),
        (several("WEBP"), "frames"),
        (heic(3), "pictures"),
        (mpo(0x020002), "pictures"),
        (pgm(2), "pictures"),
        (pages(0, 0), "pages"),
        (pages(0, 0, bigtiff=True), "pages"),
        (pages(0, 0, byteorder=">"), "pages"),
        (pages(0, 1, 0), "pages"),
        # Of these the picture that is shown is the only one there is.
        (heic(), None),
        (saved("AVIF"), None),
        (saved("JPEG"), None),
        (mpo(0), None),
        (mpo(0x010001), None),
        (saved("ICO", sizes=[(16, 16), (32, 32), (64, 64)]), None),
        (pages(0), None),
        (pages(0, 1, 1), None),
        (following_nowhere(pages(0)), None),
        (pgm(1) + b"\n", None),
    ],
)
def test_what_a_file_holds_beside_its_picture_is_known(data: bytes, more: str | None) -> None:
    assert read_header(data, 10**7).more == more


def test_a_sequence_without_a_still_picture_is_called_by_its_name() -> None:
    with pytest.raises(UnsupportedFormat, match="found a HEIC sequence without a still picture"):
        read_header(heic_sequence(), 10**7)
    avif = several("AVIF").replace(b"meta", b"free", 1)
    with pytest.raises(UnsupportedFormat, match="found an AVIF sequence without a still picture"):
        read_header(avif, 10**7)


def test_of_several_pictures_in_one_file_the_result_says_that_one_is_shown(tmp_path: Path) -> None:
    paged = pages(0, 0), pages(0, 0, level=9)
    for name, data in zip(("a.heic", "b.tif", "c.tif", "d.gif"), (heic(3), *paged, several("GIF")), strict=True):
        (tmp_path / name).write_bytes(data)
    wanted = parse_request({"images": [{"url": name} for name in ("a.heic", "b.tif", "c.tif", "d.gif")]})
    job = render_job(wanted, RequestLimits(), FetchSettings(), Origin(base=tmp_path))
    report = render(job, tmp_path / "out.mp4", open_encoder=NullEncoder)
    assert [(warning.type, warning.loc[1], warning.message) for warning in report.warnings[:3]] == [
        ("image_animated", 3, "this image is an animation, of which only the first frame is shown"),
        ("image_paged", 1, "this image has several pages, of which only the first is shown; so is 1 more image"),
        ("image_multiple", 0, "this file holds several pictures, of which only the main one is shown"),
    ]
