"""stillreel: an ordered list of stills, each held for a number of frames, becomes an MP4.

from renderer import render

render({"images": [{"url": "a.png", "frames": 24}, {"url": "b.jpg", "frames": 48}], "fps": 24}, "out.mp4")
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocol.schema import RenderResult
    from renderer.config import Settings
    from renderer.jobs.stills import KeptStills
    from renderer.pictures.course import OnProgress


def render(
    request: Mapping[str, Any],
    output: str | Path,
    *,
    base: str | Path | None = None,
    settings: "Settings | None" = None,
    on_progress: "OnProgress | None" = None,
    stills: str | Path | None = None,
) -> "RenderResult":
    """Render a request in this process, without a daemon, and say what came out.

    The file appears when it is whole and not before; where rendering fails, nothing is left behind.

    Args:
        request: the fields of `protocol.schema.RenderRequest`.
        output: path of the video, ending in .mp4, .m4v or .mov; its directory exists. A regular file of that name is
            replaced, a link is followed, and none of the images and sounds may be it. A poster or a contact sheet is
            put beside it: out.poster.jpg beside out.mp4.
        base: directory that relative paths start from; the working directory if absent. Any local path may be read.
        settings: limits and paths; the defaults if absent.
        on_progress: called with a `protocol.schema.Progress` after every still.
        stills: directory that coded stills are kept in, for calls that show some of them again; none are if absent.

    Raises:
        renderer.errors.ConfigError: no video can be put there.
        renderer.errors.JobError: the request is at fault; `loc` says where.
        renderer.errors.BackendError: encoding or writing failed.
    """
    # Imported here so that `import renderer` costs nothing: OpenCV and libav take a third of a second.
    from renderer.config import Settings, render_settings  # noqa: PLC0415
    from renderer.disk import files_of, place_for, refuse_inputs  # noqa: PLC0415
    from renderer.intake import Origin, parse_request, render_job  # noqa: PLC0415
    from renderer.pictures.fetch import Fetcher  # noqa: PLC0415
    from renderer.pipeline import render as render_whole  # noqa: PLC0415
    from renderer.work import images_of  # noqa: PLC0415

    settings = settings or Settings()
    place = place_for(Path(output))
    origin = Origin(base=Path(base or ".").absolute(), any_path=True)
    job = render_job(parse_request(request), settings.limits, settings.fetch, origin)
    fetcher = Fetcher(settings.fetch, base=job.base, any_path=True)
    inputs = list(files_of([url for _, url in job.request.urls()], fetcher))
    for made in (place, *(Path(image.after(str(place))) for image in images_of(job.request))):
        refuse_inputs(made, inputs)
    kept = _kept_in(Path(stills), settings) if stills else None
    show, cache = on_progress or (lambda _: None), kept.shared() if kept else None
    report = render_whole(job, place, render_settings(settings), on_progress=show, cache=cache)
    if kept and report.stills_coded:
        kept.bound_shared()
    output = Path(output).absolute()
    return report.result(output.as_uri(), output.name, job.request, beside=place)


def _kept_in(directory: Path, settings: "Settings") -> "KeptStills":
    from renderer.jobs.stills import KeptStills  # noqa: PLC0415 - few calls keep stills

    return KeptStills(directory, settings.retention, settings.engine.min_free_bytes)
