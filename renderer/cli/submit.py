"""The command `stillreel submit`."""

import os
import uuid
from pathlib import Path
from typing import Any

import click

from protocol.errors import Unreachable
from renderer.cli import terminal, usage
from renderer.cli.client import (
    LONG_PATIENCE_S,
    Daemon,
    daemon_options,
    fetch_option,
    fetched,
    place_to_fetch,
)
from renderer.cli.output import overwrite_option
from renderer.cli.render import Typed, request_options, with_warnings
from renderer.cli.usage import json_option
from renderer.errors import ConfigError


@click.command(epilog=usage.CLIENT)
@request_options
@click.option("--wait", is_flag=True, help="Wait until the job has ended and show its progress.")
@fetch_option
@overwrite_option
@daemon_options
@json_option
def submit(
    *,
    typed: Typed,
    wait: bool,
    output: Path | None,
    overwrite: bool | None,
    daemon: Daemon,
    as_json: bool,
) -> None:
    """Send images or a manifest to a running daemon. It must be allowed to read the local files in it.

    A manifest is a .json, .jsonl, .csv or .ffconcat file, or - for stdin. Images are files, urls, a directory, a quoted
    glob, or a pattern such as frames_%04d.png.
    """
    if output is not None and not wait:
        raise ConfigError("expected --wait with -o; without it, fetch the video later: stillreel result ID -o FILE")
    found = typed.ask(for_daemon=True)
    if output is not None and found.fields.get("output"):
        raise ConfigError("-o fetches the video, but output puts it into a bucket: leave one out")
    request = _absolute(found.fields, found.base)
    if request.get("request_id") is None:
        request["request_id"] = uuid.uuid4().hex
    if not wait:
        terminal.show_warnings(found.warnings)
        daemon.show_answer("submit", request, as_json=as_json)
        return
    with (
        place_to_fetch(output, overwrite=overwrite, as_json=as_json, manifest=found.manifest) as place,
        daemon.client(LONG_PATIENCE_S) as client,
    ):
        try:
            with terminal.progress_bar(quiet=as_json) as show:
                rendered = client.render(request, progress=show)
        except (KeyboardInterrupt, Unreachable):
            terminal.show_note(f"the job continues if it was accepted: stillreel status {request['request_id']}")
            raise
        warned = with_warnings(rendered, found)
        made = fetched(client, warned, request["request_id"], place, is_alone=str(output) == "-")
    terminal.show_result(made, as_json=as_json, on_stderr=str(output) == "-")


def _absolute(request: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the paths of local files absolute, so that the daemon finds them; it checks the rest of the request."""

    def absolute(source: object) -> object:
        url = source.get("url") if isinstance(source, dict) else None
        if not isinstance(source, dict) or not isinstance(url, str) or ":" in url.split("/")[0]:
            return source
        return {**source, "url": os.path.normpath(base / url)}

    lists = {name: request[name] for name in ("images", "audio") if isinstance(request.get(name), list)}
    return {**request, **{name: [absolute(source) for source in sources] for name, sources in lists.items()}}
