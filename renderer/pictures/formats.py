"""The table of formats: which decoder reads which kind of samples, and what everything else is called.

Only kinds in the table reach a decoder. OpenCV gets the kinds that it reads correctly; those that it reads wrong, or
from uninitialised memory, go to another decoder or are refused. Each line below was compared with independent decoders
(tests/pictures/matrix.py has the files), and decoded with two different fillings of the heap, which must make no
difference.

What OpenCV 5.0.0.93 gets wrong, and who reads it instead:

- TIFF with separate planes of 16 bits or floats: two of three channels are uninitialised memory. Each plane is given to
  it as a separate grey picture (`tiff`).
- TIFF of 8 bits and less: strips that end early are black without an error, palettes of 1 bit are wrong, alpha is lost:
  Pillow.
- PNG with animation chunks: first frames that end early show uninitialised memory, damaged later frames end the
  process. It gets only the still picture (`png`). It loses a grey colour key, so `png` looks for the key itself.
- BMP with bit fields, OS/2's headers, 16 bits (31 becomes 248), run-length coding: `bmp`.
- PGM and PPM whose maxval is neither 255 nor 65535: `netpbm`. JPEG 2000 of other depths than 8 and 16: scaled by us, or
  read by Pillow.
- GIF, CMYK, and AVIF of 10 and 12 bits: Pillow. Pillow's libyuv loses 12 levels of blue in AVIF of limited range (its
  coefficient does not fit a signed byte): libav.

JPEG XL is in the table where the extra `jxl` is installed. pyjpegxl shows the last frame of an animation, not the
first, and no file was at hand to judge premultiplied alpha and other extra channels by: they are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from renderer.errors import DecodeFailed, UnsupportedFormat
from renderer.geometry import Size

if TYPE_CHECKING:  # the daemon imports this table too, but no decoder
    from PIL import Image

    from renderer.pictures.light import Coding

OPENCV, PILLOW, LIBAV, LIBHEIF, OPENEXR, OURS = "OpenCV", "Pillow", "libav", "libheif", "OpenEXR", "stillreel"
LIBJXL = "libjxl"

More = Literal["frames", "pages", "pictures"]

_GREYS: Final = ("1-bit grey", "2-bit grey", "4-bit grey", "8-bit grey", "16-bit grey")
_PALETTES: Final = ("1-bit palette", "2-bit palette", "4-bit palette", "8-bit palette")
_BMP_DEPTHS: Final = (*_PALETTES, "16-bit RGB", "24-bit RGB", "32-bit RGB")

_DEEP: Final = ("16-bit", "32-bit float", "64-bit float")
_TIFF_COLOURS: Final = tuple(
    f"{planes}{colour}" for planes in ("", "planar ") for colour in ("RGB", "RGBA", "premultiplied RGBA", "RGBX")
)

_HAS_JXL: Final = find_spec("pyjpegxl") is not None  # an extra

# Format -> kind of samples -> who reads it.
DECODERS: Final[Mapping[str, Mapping[str, str]]] = {
    "JPEG": {"grey": OPENCV, "colour": OPENCV, "CMYK": PILLOW},
    "PNG": dict.fromkeys(
        (*_GREYS, *_PALETTES, "8-bit RGB", "16-bit RGB", "8-bit RGBA", "16-bit RGBA", "8-bit grey with alpha",
         "16-bit grey with alpha"), OPENCV
    ),
    "WebP": {"still": OPENCV, "animated": PILLOW},
    "GIF": {"": PILLOW},
    "TIFF": {
        **dict.fromkeys((*_GREYS[:4], *_PALETTES, "8-bit CMYK", "8-bit YCbCr"), PILLOW),
        "8-bit grey with alpha": PILLOW,
        **{f"{depth} planar {times}grey with alpha": PILLOW if depth == "8-bit" else OPENCV
           for depth in ("8-bit", *_DEEP) for times in ("", "premultiplied ")},
        **dict.fromkeys((f"8-bit {kind}" for kind in _TIFF_COLOURS), PILLOW),
        **dict.fromkeys((f"{depth} {kind}" for depth in _DEEP for kind in ("grey", *_TIFF_COLOURS)), OPENCV),
    },
    "BMP": {**dict.fromkeys(_BMP_DEPTHS, OURS), "run-length coded 4-bit": OURS, "run-length coded 8-bit": OURS},
    "Netpbm": dict.fromkeys(("bitmap", "grey", "grey with alpha", "RGB", "RGBA", "float grey", "float RGB"), OURS),
    "OpenEXR": {f"{depth} {kind}": OPENEXR for depth in ("half", "float") for kind in ("grey", "RGB", "RGBA")},
    "JPEG 2000": {
        **{f"{bits}-bit {kind}": OPENCV if bits >= 8 else PILLOW for bits in range(1, 17) for kind in ("grey", "RGB")},
        **{f"8-bit {times}{kind}": PILLOW for times in ("", "premultiplied ") for kind in ("RGBA", "grey with alpha")},
        **{f"{bits}-bit palette": PILLOW for bits in range(1, 9)}, "8-bit YCbCr": PILLOW,
        **{f"off-origin {bits}-bit {kind}": PILLOW for bits in range(1, 9) for kind in ("grey", "RGB")},
    },
    **({"JPEG XL": {
        f"{depth} {kind}": LIBJXL
        for depth in ("8-bit", "16-bit", "float")
        for kind in ("grey", "grey with alpha", "RGB", "RGBA")
    }} if _HAS_JXL else {}),
    "AVIF": {"full-range": PILLOW, "limited-range": LIBAV, "HDR": LIBAV},
    "HEIC": {
        f"{bits}-bit {kind}": LIBHEIF
        for bits in (8, 10, 12)
        for kind in ("grey", "RGB", "RGBA", "premultiplied RGBA")
    },
    "Radiance HDR": {"": OURS},
    "Sun raster": dict.fromkeys(("1-bit", "8-bit palette", "8-bit grey", "24-bit RGB", "32-bit RGB"), OURS),
    "DPX": {
        **dict.fromkeys(("8-bit grey", "12-bit grey", "16-bit grey"), OURS),
        **{f"{bits}-bit {kind}": OURS for bits in (8, 10, 12, 16) for kind in ("RGB", "RGBA", "ABGR")},
    },
    "ICO": dict.fromkeys(("PNG", "1-bit palette", "4-bit palette", "8-bit palette", "16-bit RGB", "24-bit RGB",
                          "32-bit RGB"), OURS),
    "Photoshop": {
        **dict.fromkeys(("1-bit bitmap", "8-bit palette", "8-bit duotone"), PILLOW),
        "8-bit CMYK": PILLOW, "8-bit CMYK with alpha": PILLOW,
        **{f"{depth} {kind}": PILLOW if depth == "8-bit" else OPENCV
           for depth in ("8-bit", "16-bit", "32-bit float") for kind in ("grey", "grey with alpha", "RGB", "RGBA")},
    },
    "TGA": {
        f"{coded}{kind}": OURS
        for coded in ("", "run-length coded ")
        for kind in ("8-bit palette", "16-bit palette", "8-bit grey", "16-bit grey", "15-bit RGB", "16-bit RGB",
                     "24-bit RGB", "32-bit RGB")
    },
}  # fmt: skip

READ_HERE: Final = ", ".join(sorted(DECODERS, key=str.lower)[:-1]) + " and WebP"

# The first bytes of other formats, so that a refusal can name them; compiled for that, since few jobs need them.
_NAMES: Final = {
    "a HEIF image of a codec that is not read here": rb"....ftyp(?:mif1|msf1)",
    "camera raw (Canon CR3)": rb"....ftypcrx ",
    "a JPEG XL image, which stillreel[jxl] reads": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a QOI image": rb"qoif",
    "a JPEG XR image": rb"II\xbc[\0\x01]",
    "a JPEG XS image": rb"\xff\x10\xff\x50|\0\0\0\x0cJXS ",
    "a Cineon image": rb"\x80\x2a\x5f\xd7|\xd7\x5f\x2a\x80",
    "an SGI image": rb"\x01\xda[\0\x01][\x01\x02]",
    "a MIFF image (ImageMagick)": rb"id=ImageMagick",
    "an MNG animation": rb"\x8aMNG\r\n\x1a\n",
    "a JNG image": rb"\x8bJNG\r\n\x1a\n",
    "a FLIF image": rb"FLIF",
    "a BPG image": rb"BPG\xfb",
    "a farbfeld image": rb"farbfeld",
    "a DjVu document": rb"AT&TFORM",
    "an IFF image (ILBM)": rb"FORM....(?:ILBM|PBM )",
    "an animated cursor (ANI)": rb"RIFF....ACON",
    "a Macintosh icon (ICNS)": rb"icns",
    "an OS/2 bitmap array or icon": rb"(?:BA.{12}(?:BM|CI|CP|IC|PT)|(?:CI|CP|IC|PT).{12}[\x0c\x10\x28\x40]\0\0\0)",
    "an X pixmap (XPM)": rb"/\* XPM \*/",
    "an X bitmap (XBM)": rb"\s*(?:/\*.{0,512}?\*/\s*)?#define\s+\S+_width\s",
    "an X window dump (XWD)": rb"\0\0[\0-\x0f].\0\0\0\x07\0\0\0[\0-\x02]|.[\0-\x0f]\0\0\x07\0\0\0[\0-\x02]\0\0\0",
    "a VICAR image": rb"LBLSIZE=",
    "a Khoros image (VIFF)": rb"\xab\x01",
    "a set of PCX images (DCX)": rb"\xb1\x68\xde\x3a",
    "a vips image": rb"\x08\xf2\xa6\xb6|\xb6\xa6\xf2\x08",
    "a Photo CD image": rb".{2048}PCD_",
    "a Paint Shop Pro image": rb"Paint Shop Pro Image File",
    "a texture (KTX)": rb"\xabKTX ",
    "an ASTC texture": rb"\x13\xab\xa1\x5c",
    "a thumbnail of xv": rb"P7\s332",
    "a float map of halves or of four channels": rb"P[Hh]\s|PF4\s",
    "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "a MATLAB file": rb"MATLAB 5\.0",
    "camera raw (Canon CRW)": rb"II\x1a\0\0\0HEAPCCDR",
    "camera raw (Minolta MRW)": rb"\0MRM",
    "camera raw (Phase One IIQ)": rb"IIII|MMMM",
    "a DirectDraw surface (DDS)": rb"DDS ",
    "a PCX image": rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]",
    "a GIMP image (XCF)": rb"gimp xcf",
    "a FITS image": rb"SIMPLE  =",
    "a DICOM image": rb".{128}DICM",
    "camera raw (Fujifilm RAF)": rb"FUJIFILMCCD-RAW",
    "camera raw (Olympus ORF)": rb"IIR[OS]|MMOR",
    "camera raw (Panasonic RW2)": rb"IIU\0",
    "camera raw (Sigma X3F)": rb"FOVb",
    "a PDF document": rb"%PDF-",
    "a PostScript document": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an SVG drawing": rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,1024}?)?"
    rb"(?:<!DOCTYPE svg.{0,1024}?)?(?:<!--.{0,1024}?-->\s*)?<svg[\s>]",
    "an HTML page": rb"\s*(?:\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<head|<body)",
    "an XML document": rb"\s*(?:\xef\xbb\xbf)?<\?xml",
    "a JSON document": rb"\s*[{\[]\s*[\"{\[\]}]",
    "a ZIP archive": rb"PK\x03\x04",
    "a gzip file": rb"\x1f\x8b",
    "a bzip2 file": rb"BZh[1-9]",
    "an xz file": rb"\xfd7zXZ\0",
    "a Zstandard file": rb"\x28\xb5\x2f\xfd",
    "a RAR archive": rb"Rar!\x1a\x07",
    "a 7-Zip archive": rb"7z\xbc\xaf\x27\x1c",
    "a video (Matroska or WebM)": rb"\x1a\x45\xdf\xa3",
    "a video (AVI)": rb"RIFF....AVI ",
    "a sound (WAV)": rb"RIFF....WAVE",
    "a video (MP4 or QuickTime)": rb"....(?:ftyp|moov|mdat|wide)",
    "a sound (MP3)": rb"ID3",
    "a video (MPEG)": rb"\0\0\x01[\xb3\xba]",
    "a sound (Ogg)": rb"OggS",
}


@dataclass(frozen=True, slots=True)
class Header:
    """The properties of the first picture of an image file.

    Attributes:
        format: a key of the table.
        kind: the kind of samples; a key of the format's part of the table, if a decoder reads it.
        size: the size that is shown, after orientation.
        orientation: the turn that the decoded pixels still need, 1 to 8 (EXIF 2.32, 4.6.4).
        profile: the embedded ICC profile.
        coding: how the samples represent light, if there is no profile and it is not sRGB.
        more: what else the file holds beside the picture that is shown.
    """

    format: str
    kind: str
    size: Size
    orientation: int = 1
    profile: bytes | None = None
    coding: "Coding | None" = None
    more: More | None = None

    @property
    def decoder(self) -> str:
        """Return the decoder that reads this kind of file.

        Raises:
            UnsupportedFormat: no decoder reads it; the message names the kind.
        """
        found = DECODERS[self.format].get(self.kind)
        if found is None:
            raise unsupported(f"{self.kind} {self.format}".strip())
        return found


def unsupported(what: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"expected an image that is read here ({READ_HERE}), found {_with_article(what)}")


def unrecognised(data: bytes) -> UnsupportedFormat:
    """Return the error for bytes that do not begin like any format of the table."""
    if not data:
        return unsupported("an empty file")
    return unsupported(name_elsewhere(data) or f"{len(data)} bytes in an unknown format")


def name_elsewhere(data: bytes) -> str | None:
    """Return the name of a format outside the table by the first bytes of a file, or None if they are unknown."""
    return next((name for name, magic in _NAMES.items() if re.match(magic, data, re.DOTALL)), None)


def turned(width: int, height: int, orientation: int) -> Size:
    """Return the size that is shown after the turn of an EXIF orientation."""
    return Size(height, width) if orientation >= 5 else Size(width, height)


def load(image: "Image.Image", size: Size) -> None:
    """Decode an image that Pillow has opened.

    Raises:
        DecodeFailed: Pillow found another size in the file than our parser; such a file is made to deceive one of them.
    """
    if image.size != (size.width, size.height):
        raise DecodeFailed(f"expected a file that names one size, found {size} and {image.size[0]}x{image.size[1]}")
    image.load()


def _with_article(what: str) -> str:
    if re.match(r"an? |camera raw|\d+ bytes", what):
        return what
    return f"an {what}" if re.match(r"[aeiouAEIO]|8|11-|18|HDR", what) else f"a {what}"
