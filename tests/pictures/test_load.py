"""What the threads that load stills have worked is added up whole, however they come between each other."""

import threading

from renderer.config import FetchSettings, PictureSettings
from renderer.pictures.fetch import Fetcher
from renderer.pictures.load import Loader


def test_no_thread_loses_what_another_has_worked() -> None:
    """The second thread notes its second while the first one's is being added, if it is added there and then."""
    with Loader(Fetcher(FetchSettings()), PictureSettings()) as loader:
        second = threading.Thread(target=lambda: loader.worked(Began()))

        class Second(float):
            def __radd__(self, other: float) -> float:
                if threading.current_thread() is first:
                    second.start()
                    second.join()
                return float(other) + 1.0

        class Began(float):
            def __rsub__(self, now: float) -> float:
                return Second(1)

        first = threading.Thread(target=lambda: loader.worked(Began()))
        first.start()
        first.join()
        if not second.ident:
            second.start()
        second.join()
        assert loader.busy_s == 2
