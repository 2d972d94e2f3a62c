"""Parameter sets and slice headers as ffmpeg reads them: a reader that shares nothing with ours."""

import re
import subprocess

import imageio_ffmpeg

Fields = dict[str, int]

_LINE = re.compile(r"^\[trace_headers @ [^]]*\] (?:\d+ +(?P<field>\S+) .*= (?P<value>-?\d+)|(?P<title>\D.*))$")


def traced(stream: bytes) -> list[tuple[str, Fields]]:
    """Return the headers of an Annex B stream in order, each by its name; the first picture's sets come twice."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-f", "h264", "-i", "pipe:0"]
    command += ["-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"]
    told = subprocess.run(command, input=stream, capture_output=True, check=False).stderr.decode(errors="replace")
    headers: list[tuple[str, Fields]] = []
    for line in told.splitlines():
        if not (found := _LINE.match(line)):
            continue
        if found["title"]:
            headers.append((found["title"], {}))
        elif headers:
            headers[-1][1][found["field"]] = int(found["value"])
    return headers


def of_kind(headers: list[tuple[str, Fields]], kind: str) -> list[Fields]:
    return [fields for title, fields in headers if title == kind]
