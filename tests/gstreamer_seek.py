"""Seeks in a file with GStreamer and tells what it shows: PATH NANOSECONDS..., one grey a line. Run as a program.

Through ctypes, since GStreamer's Python bindings belong to the system's own Python. The decoder is OpenH264.
"""

import ctypes
import sys

gst = ctypes.CDLL("libgstreamer-1.0.so.0")
app = ctypes.CDLL("libgstapp-1.0.so.0")

_PAUSED = 3
_FORMAT_TIME = 3
_FLUSH, _ACCURATE = 1, 2
_SECOND_NS = 1_000_000_000
_MAP_READ = 1


class MapInfo(ctypes.Structure):
    """GstMapInfo, as far as it is read here, with room for the rest."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_ubyte)),
        ("size", ctypes.c_size_t),
        ("rest", ctypes.c_void_p * 10),
    )


def declare(library: ctypes.CDLL, name: str, result: object, *arguments: object) -> None:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments


pointer, number = ctypes.c_void_p, ctypes.c_uint64
declare(gst, "gst_init", None, pointer, pointer)
declare(gst, "gst_parse_launch", pointer, ctypes.c_char_p, pointer)
declare(gst, "gst_bin_get_by_name", pointer, pointer, ctypes.c_char_p)
declare(gst, "gst_element_set_state", ctypes.c_int, pointer, ctypes.c_int)
declare(gst, "gst_element_get_state", ctypes.c_int, pointer, pointer, pointer, number)
declare(gst, "gst_element_seek_simple", ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
declare(gst, "gst_sample_get_buffer", pointer, pointer)
declare(gst, "gst_buffer_map", ctypes.c_int, pointer, ctypes.POINTER(MapInfo), ctypes.c_int)
declare(app, "gst_app_sink_try_pull_preroll", pointer, pointer, number)


def main(path: str, *moments_ns: str) -> None:
    gst.gst_init(None, None)
    words = f"filesrc location={path} ! qtdemux ! h264parse ! openh264dec ! appsink name=sink sync=false"
    pipeline = gst.gst_parse_launch(words.encode(), None)
    sink = gst.gst_bin_get_by_name(pipeline, b"sink")
    gst.gst_element_set_state(pipeline, _PAUSED)
    gst.gst_element_get_state(pipeline, None, None, 10 * _SECOND_NS)
    for moment_ns in moments_ns:
        if not gst.gst_element_seek_simple(pipeline, _FORMAT_TIME, _FLUSH | _ACCURATE, int(moment_ns)):
            sys.exit("GStreamer does not seek")
        gst.gst_element_get_state(pipeline, None, None, 10 * _SECOND_NS)
        sample = app.gst_app_sink_try_pull_preroll(sink, 10 * _SECOND_NS)
        if not sample:
            sys.exit("GStreamer shows nothing")
        seen = MapInfo()
        gst.gst_buffer_map(gst.gst_sample_get_buffer(sample), ctypes.byref(seen), _MAP_READ)
        sys.stdout.write(f"{seen.data[0]}\n")
    gst.gst_element_set_state(pipeline, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
