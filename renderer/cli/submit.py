"""The command `stillreel submit`."""

import os
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from protocol.endpoint import DEFAULT_ENDPOINT as ENDPOINT
from protocol.errors import Unreachable
from renderer.cli import terminal, usage
from renderer.cli.client import (
    LONG_PATIENCE_S,
    Connect,
    Curve,
    FetchTo,
    client_of,
    fetched,
    place_to_fetch,
)
from renderer.cli.output import Overwrite
from renderer.cli.render import (
    Assignments,
    CanvasOption,
    Fps,
    Gaps,
    Hold,
    KeepOrder,
    OnErrorOption,
    ScalingOption,
    Sources,
    Start,
    asked,
    assigned,
    with_warnings,
)
from renderer.cli.usage import AsJson
from renderer.errors import ConfigError

app = typer.Typer()


@app.command(epilog=usage.CLIENT)
def submit(
    sources: Sources,
    *,
    hold: Hold = None,
    fps: Fps = None,
    scaling: ScalingOption = None,
    canvas: CanvasOption = None,
    on_error: OnErrorOption = None,
    assignments: Assignments = None,
    start: Start = None,
    gaps: Gaps = None,
    keep_order: KeepOrder = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended and show its progress.")] = False,
    output: FetchTo = None,
    overwrite: Overwrite = None,
    connect: Connect = ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Send images or a manifest to a running daemon, which must be allowed to read the local files in it."""
    if output is not None and not wait:
        raise ConfigError("expected --wait with -o; without it, fetch the video later: stillreel result ID -o FILE")
    fields = assigned(assignments, fps=fps, scaling=scaling, canvas=canvas, gaps=gaps, on_error=on_error)
    found = asked(sources, hold, fields, start, keep_order=keep_order)
    request = _absolute(found.fields, found.base)
    if not wait:
        terminal.show_warnings(found.warnings)
        with client_of(connect, curve) as client:
            terminal.show_status(client.submit(request), as_json=as_json)
        return
    if request.get("request_id") is None:
        request["request_id"] = uuid.uuid4().hex
    with (
        place_to_fetch(output, overwrite=overwrite, as_json=as_json, manifest=found.manifest) as place,
        client_of(connect, curve, LONG_PATIENCE_S) as client,
    ):
        try:
            with terminal.progress_bar(quiet=as_json) as show:
                rendered = client.render(request, progress=show)
        except (KeyboardInterrupt, Unreachable):
            terminal.show_note(f"the job continues if it was accepted: stillreel status {request['request_id']}")
            raise
        made = fetched(client, with_warnings(rendered, found), request["request_id"], place)
    terminal.show_result(made, as_json=as_json, on_stderr=str(output) == "-")


def _absolute(request: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the paths of local files absolute, so that the daemon finds them; it checks the rest of the request."""
    images = request.get("images")
    if not isinstance(images, list):
        return request

    def absolute(image: object) -> object:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str) or ":" in url.split("/")[0]:
            return image
        return {**image, "url": os.path.normpath(base / url)}

    return {**request, "images": [absolute(image) for image in images]}
