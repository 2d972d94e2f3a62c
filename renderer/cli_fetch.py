"""Where `submit -o` and `result -o` put a daemon's video: checked before the work, written once it is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.schema import RenderResult
from renderer import terminal
from renderer.cli_render import refuse_manifest, written
from renderer.errors import ConfigError, OutputFailed

if TYPE_CHECKING:
    from protocol.client import Client


@contextmanager
def place_to_fetch(
    output: Path | None, *, overwrite: bool | None, as_json: bool, manifest: Path | None = None
) -> Iterator[Path | None]:
    """Lend the place that the video is to be fetched to; None where nobody asks for it.

    Raises:
        ConfigError: no video can be put there.
    """
    if output is None:
        yield None
        return
    if str(output) != "-" and output.suffix.lower() != ".mp4":
        raise ConfigError(f"output: a daemon makes MP4 files; expected a name that ends in .mp4, found {output}")
    with written(output, overwrite=overwrite, as_json=as_json) as place:
        if manifest:
            refuse_manifest(place, manifest)
        yield place


def fetched(client: "Client", made: RenderResult, request_id: str, place: Path | None) -> RenderResult:
    """Fetch the video if there is a place for it, and return the result with the url that it then has.

    Raises:
        OutputFailed: it cannot be written.
    """
    if place is None:
        return made
    try:
        client.download(request_id, place)
    except OSError as error:
        raise OutputFailed(f"output: {place} cannot be written: {error.strerror}") from error
    except BaseException:
        terminal.show_note(f"the video was made but not fetched: stillreel result {request_id} -o FILE")
        raise
    video = made.video.model_copy(update={"url": place.absolute().as_uri(), "file_name": place.name})
    return made.model_copy(update={"video": video})
