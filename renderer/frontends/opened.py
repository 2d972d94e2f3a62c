"""The url of a video that has become an object, as a client gets it: signed when it is asked for, and never stored."""

import asyncio

from protocol.objects import is_object, parse_object
from protocol.schema import RenderResult
from renderer.config import RenderSettings


async def opened(result: RenderResult, settings: RenderSettings) -> RenderResult:
    """Return the result with a url that opens the object for whoever has it, if the settings say for how long.

    Raises:
        OutputFailed: there are no credentials to sign it with now.
    """
    url, seconds = result.video.url, settings.outputs.presign_s
    if not (seconds and is_object(url)):
        return result
    from renderer.net.objects import access_for, signed  # noqa: PLC0415 - obstore, which few daemons need

    link = await asyncio.to_thread(signed, parse_object(url), seconds, access_for(settings.fetch))
    return result.model_copy(update={"video": result.video.model_copy(update={"url": link})})
