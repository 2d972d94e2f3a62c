"""Which stills show the same picture is known from urls and bytes, before anything is decoded."""

from pathlib import Path

from protocol.schema import PixelLayout
from renderer.config import FetchSettings
from renderer.pictures.fetch import Fetcher
from renderer.pictures.reel import identities
from renderer.work import Attachment


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def groups(values: list[object]) -> list[int]:
    """Number the values by first appearance."""
    order = list(dict.fromkeys(values))
    return [order.index(value) for value in values]


def test_files_with_the_same_bytes_are_the_same_picture(tmp_path):
    body = bytes(range(256)) * 100
    middle = bytearray(body)
    middle[9000] ^= 1  # between the samples
    urls = [
        written(tmp_path / "a", body),
        written(tmp_path / "b", body),
        written(tmp_path / "c", bytes(middle)),
        written(tmp_path / "d", body[:-1]),
        str(tmp_path / "a"),
        f"file://{tmp_path}/b",
    ]
    fetcher = Fetcher(FetchSettings(allow_roots=(tmp_path,)))
    assert groups(identities(urls, fetcher)) == [0, 0, 1, 2, 0, 0]


def test_attachments_with_the_same_pixels_are_the_same_picture(tmp_path):
    layout = PixelLayout(shape=(2, 2, 3))
    contents = [b"\1" * 12, b"\2" * 12, b"\1" * 12]
    attachments = [Attachment(Path(written(tmp_path / str(n), content)), layout) for n, content in enumerate(contents)]
    fetcher = Fetcher(FetchSettings(), attachments=attachments)
    assert groups(identities(["cid:0", "cid:1", "cid:2"], fetcher)) == [0, 1, 0]


def test_what_cannot_be_read_stands_for_itself(tmp_path):
    urls = [str(tmp_path / "missing"), "/etc/hostname", "data:,x", "data:,y", str(tmp_path / "missing")]
    fetcher = Fetcher(FetchSettings(allow_roots=(tmp_path,)))
    assert groups(identities(urls, fetcher)) == [0, 1, 2, 3, 0]
