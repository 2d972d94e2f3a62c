import threading
from pathlib import Path

from renderer.config import FetchSettings, PictureSettings
from renderer.geometry import Canvas
from renderer.pictures.compose import Framing
from renderer.pictures.fetch import Content, Fetcher
from renderer.pictures.load import Loader
from renderer.pictures.prepare import Stills
from renderer.pictures.reel import Source


def test_the_first_still_is_read_before_anyone_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "still.pgm").write_bytes(b"P5 2 2 255\n" + bytes(4))
    begun = threading.Event()

    class Seen(Loader):
        def fetch(self, source: Source) -> Content:
            begun.set()
            return super().fetch(source)

    settings, look = PictureSettings(), Framing(Canvas(64, 48))
    source = Source(image=0, url=str(tmp_path / "still.pgm"), picture="still")
    with Seen(Fetcher(FetchSettings(), any_path=True), settings) as loader, Stills([source], look, loader, settings):
        assert begun.wait(60)
