"""The urls of files that have become objects, as a client gets them: signed when asked for, and never stored."""

import asyncio

from protocol.objects import is_object, parse_object
from protocol.schema import RenderResult
from renderer.config import RenderSettings


async def opened(result: RenderResult, settings: RenderSettings) -> RenderResult:
    """Return the result with urls that open the objects for whoever has them, if the settings say for how long.

    Raises:
        OutputFailed: there are no credentials to sign it with now.
    """
    seconds = settings.outputs.presign_s
    if not (seconds and is_object(result.video.url)):
        return result
    from renderer.net.objects import access_for, signed  # noqa: PLC0415 - obstore, which few daemons need

    access = access_for(settings.fetch)
    return await asyncio.to_thread(result.with_urls, lambda file: signed(parse_object(file.url), seconds, access))
