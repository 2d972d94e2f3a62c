"""The one door: what is refused before any work, at which field, in which words."""

import asyncio
import base64
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from protocol.schema import PixelLayout, RenderParams, RenderRequest
from renderer.config import FetchSettings, RenderSettings, RequestLimits
from renderer.errors import (
    FetchFailed,
    FileTooLarge,
    InvalidRequest,
    JobError,
    LimitExceeded,
    NotSupported,
    TooManyImages,
)
from renderer.frontends.intake import Door, _told_in_parts
from renderer.intake import Origin, parse_request, refuse_missing_gpu, render_job
from renderer.jobs.job import Job
from renderer.work import Attachment, NvencDevice, NvencFindings, NvencLimits, RenderJob
from tests.jobs.factories import left, running

LIMITS = RequestLimits(max_images=3, max_frames=100, max_duration_s=10, max_canvas_side=640)


@pytest.fixture
def fetch(tmp_path: Path) -> FetchSettings:
    return FetchSettings(allow_roots=(tmp_path,), allow_http=False, max_image_bytes=1000)


@pytest.fixture
def job_of(fetch: FetchSettings):
    """Return a factory: a job from these images and other fields."""

    def job(*images: dict[str, Any], origin: Origin | None = None, **fields: Any) -> RenderJob:
        return render_job(parse_request({"images": images or [{"url": "a.png"}], **fields}), LIMITS, fetch, origin)

    return job


def refusal(kind: type[JobError], job_of, *images: dict[str, Any], **fields: Any) -> str:
    """Return the message of a request that is refused, exactly as this kind."""
    with pytest.raises(JobError) as raised:
        job_of(*images, **fields)
    assert type(raised.value) is kind
    return str(raised.value)


def test_faults_of_fields_limits_and_urls_are_named_in_one_answer(job_of) -> None:
    images = [{"url": "../a.png", "frames": 200}, {"url": "ftp://a"}]
    with pytest.raises(JobError) as raised:
        job_of(*images, width=9000, timecode="25:00:00:00", webhook_url="https://example.com/")
    fault = raised.value.fault()
    assert [(tuple(each["loc"]), each["type"]) for each in fault.errors] == [
        (("webhook_url",), "not_supported"),
        (("width",), "less_than_equal"),
        (("images",), "less_than_equal"),
        (("timecode",), "invalid_params"),
        (("images", 0, "url"), "file_download_error"),
        (("images", 1, "url"), "not_supported"),
    ]
    assert fault.errors[1]["ctx"] == {"le": 640}
    assert all(each["msg"] in fault.message for each in fault.errors)


def test_durations_that_are_too_short_are_named_with_other_faults_and_twenty_at_most(fetch: FetchSettings) -> None:
    def fault_of(count: int):
        images = [{"url": f"ftp://host/{number}.png", "duration": 0.001} for number in range(count)]
        with pytest.raises(JobError) as raised:
            render_job(parse_request({"images": images, "timecode": "25:00:00:00"}), RequestLimits(), fetch)
        return raised.value.fault()

    assert [tuple(each["loc"]) for each in fault_of(2).errors] == [
        ("images", 0, "duration"),
        ("images", 1, "duration"),
        ("timecode",),
        ("images", 0, "url"),
        ("images", 1, "url"),
    ]
    assert len(fault_of(30).errors) == 20
    assert fault_of(30).message.endswith("; there are more faults than these")


def test_a_job_has_everything_that_rendering_needs(job_of, tmp_path: Path) -> None:
    job = job_of({"url": "a.png", "frames": 24}, {"url": "b.png", "duration": 0.5}, fps=29.97)
    assert job.timeline.fps == Fraction(30000, 1001)
    assert job.timeline.holds == (24, 15)
    assert (job.base, job.any_path, job.attachments) == (None, False, ())


def test_the_origin_goes_along(job_of, tmp_path: Path) -> None:
    attachment = Attachment(tmp_path / "0", PixelLayout(shape=(2, 2, 3)))
    job = job_of({"url": "cid:0"}, origin=Origin((attachment,), tmp_path, any_path=True))
    assert (job.base, job.any_path, job.attachments) == (tmp_path, True, (attachment,))


# Limits.


def test_the_limits_themselves_are_allowed(job_of) -> None:
    job_of(*[{"url": "a.png"}] * 3, fps=10, width=640, height=640)
    job_of({"url": "a.png", "frames": 100}, fps=10)


@pytest.mark.parametrize(
    ("images", "fields", "kind", "words"),
    [
        ([{"url": "a"}] * 4, {}, TooManyImages, "images: expected up to 3 images, found 4"),
        ([{"url": "a", "frames": 101}], {}, LimitExceeded, "images: expected up to 100 frames in all, found 101"),
        ([{"url": "a", "frames": 60}] * 2, {}, LimitExceeded, "images: expected up to 100 frames in all, found 120"),
        ([{"url": "a", "frames": 11}], {"fps": 1}, LimitExceeded, "images: expected up to 10 s in all, found 11.000 s"),
        ([{"url": "a"}], {"width": 642}, LimitExceeded, "width: expected up to 640, found 642"),
        ([{"url": "a"}], {"height": 641}, LimitExceeded, "height: expected up to 640, found 641"),
        ([{"url": "a"}], {"webhook_url": "http://a/"}, NotSupported, "webhook_url: only a daemon can call a webhook"),
    ],
)
def test_what_is_above_a_limit_or_not_there_is_refused_at_its_field(job_of, images, fields, kind, words: str) -> None:
    assert refusal(kind, job_of, *images, **fields).startswith(words)


def test_nvenc_by_name_is_refused_with_the_probes_reason() -> None:
    request = RenderRequest.model_validate({"images": [{"url": "a"}], "encoder": "nvenc"})
    h100 = NvencDevice("GPU-1", "H100", "H100 has none", has_engine=False)
    with pytest.raises(NotSupported, match="encoder: H100 has none"):
        refuse_missing_gpu(request, NvencFindings("570", (h100,)))
    withheld = NvencDevice("GPU-1", "L4", "L4: the driver refuses")
    refuse_missing_gpu(request, NvencFindings("570", (withheld,)))  # a worker asks it again
    refuse_missing_gpu(request, NvencFindings("570", (NvencDevice("GPU-2", "L4"),)))
    refuse_missing_gpu(request, None)
    refuse_missing_gpu(request.model_copy(update={"encoder": "auto"}), NvencFindings(reason="there is no driver"))


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((8192, 8192), "width: expected up to 4352 with a height of 8192, found 8192: no level of H.264 allows more"),
        ((8192, 4353), "width: expected up to 8160 with a height of 4353, found 8192: no level of H.264 allows more"),
    ],
)
def test_sides_that_no_level_has_together_are_refused_by_name(fetch: FetchSettings, sides, words: str) -> None:
    def job(width: int, height: int) -> RenderJob:
        fields = {"images": [{"url": "a.png"}], "width": width, "height": height}
        return render_job(parse_request(fields), RequestLimits(), fetch)

    with pytest.raises(NotSupported) as raised:
        job(*sides)
    assert str(raised.value) == words
    job(8192, 4352)


@pytest.mark.parametrize("name", ["width", "height"])
def test_a_side_that_the_gpus_encoder_has_not_is_refused_where_it_is_named(name: str) -> None:
    fields = {"images": [{"url": "a"}], name: 4098}
    small, large = (NvencLimits(145, side, 49, side, engines=1, most_b_pictures=0) for side in (4096, 8192))
    cards = [NvencDevice(f"GPU-{limits.width_max}", "L4", limits=limits) for limits in (small, large)]
    request = RenderRequest.model_validate({**fields, "encoder": "nvenc"})
    words = f"^{name}: expected up to 4096, found 4098: this is the limit of the GPU's encoder"
    with pytest.raises(NotSupported, match=words):
        refuse_missing_gpu(request, NvencFindings("570", (cards[0],)))
    refuse_missing_gpu(request, NvencFindings("570", tuple(cards)))
    refuse_missing_gpu(request.model_copy(update={"encoder": "auto"}), NvencFindings("570", (cards[0],)))


@pytest.mark.parametrize("images", [[{"url": "a", "duration": 1e300}], [{"url": "a", "frames": 2**31 - 1}] * 3])
def test_absurd_lengths_are_refused_in_few_words(job_of, images) -> None:
    assert len(refusal(LimitExceeded, job_of, *images)) < 500


# Fields.


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "images: expected a value, found none"),
        ({"images": []}, "images: "),
        (
            {"images": [{"url": "a", "frames": 0}]},
            "images[0].frames: expected at least 1, found 0",
        ),
        ({"images": [{"url": "a"}, {"frames": 3}]}, "images[1].url: expected a value, found none"),
        ({"images": [{"url": "a", "frames": 2.5}]}, "images[0].frames: "),
        ({"images": [{"url": "a", "frames": True}]}, "images[0].frames: "),
        ({"images": [{"url": "a", "frames": 3, "duration": 1}]}, "images[0]: "),
        ({"images": [{"url": "a", "duration": 0.001}]}, "images[0].duration: 0.001 s leaves no frame"),
        ({"images": [{"url": "a"}], "fps": 0}, "fps: "),
        ({"images": [{"url": "a"}], "fps": "nan"}, "fps: "),
        ({"images": [{"url": "a"}], "fsp": 24}, "fsp: no such field; did you mean fps?"),
        ({"images": [{"url": "a"}], "background": "red"}, "background: "),
        ({"images": [{"url": "a"}], "crf": 52}, "crf: expected at most 51, found 52"),
    ],
)
def test_a_wrong_field_is_refused_at_its_place(fetch, params: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        render_job(parse_request(params), LIMITS, fetch)
    assert str(raised.value).startswith(words)


def test_every_wrong_field_is_told(fetch) -> None:
    with pytest.raises(InvalidRequest, match=r"; .*; ") as raised:
        parse_request({"images": [{"url": "a", "frames": 0}, {"url": ""}], "crf": 99})
    assert [detail["loc"] for detail in raised.value.details] == [
        ["images", 0, "frames"],
        ["images", 1, "url"],
        ["crf"],
    ]


def test_a_long_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request({"images": [{"url": "a"}], "background": "#" * 100_000})
    assert len(str(raised.value)) < 250


# Sources.


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("../a.png", FetchFailed, "expected a path without '..'"),
        ("/etc/passwd", FetchFailed, "not under a directory that may be read"),
        ("file:///etc/passwd", FetchFailed, "not under a directory that may be read"),
        ("http://example.com/a.png", FetchFailed, "http and https are switched off here"),
        ("ftp://example.com/a.png", NotSupported, "expected a path or a url of the schemes"),
        ("cid:0", FetchFailed, "expected one of 0 attachments"),
        ("data:image/png", FetchFailed, "expected a comma"),
        ("data:image/png;base64," + "A" * 5000, FileTooLarge, "expected at most 1000 bytes"),
    ],
)
def test_a_source_that_may_not_be_read_is_refused_before_any_work(job_of, url: str, kind, words: str) -> None:
    message = refusal(kind, job_of, {"url": url})
    assert message.startswith("images[0].url: ")
    assert words in message
    job_of({"url": "a.png"}, {"url": url})  # whoever looks at a.png names both


def test_a_repeated_source_is_named_at_its_first_place(job_of) -> None:
    message = refusal(FetchFailed, job_of, {"url": "/y"}, {"url": "/x"}, {"url": "/x"})
    assert message.count("images[") == 2
    assert "; images[1].url: " in message


def test_messages_hold_no_path_of_the_server(job_of, tmp_path: Path) -> None:
    for url in ("/etc/passwd", "../x", "file:///root/x", "file://host/x", "x\0y"):
        message = refusal(FetchFailed, job_of, {"url": url})
        assert str(tmp_path) not in message
        assert "/etc" not in message
        assert "/root" not in message


def test_nothing_is_read_before_the_job_runs(job_of) -> None:
    job_of({"url": "none.png"})
    job_of({"url": "data:image/png;base64," + base64.b64encode(b"no image").decode()})


# Doors.


def accepted(directory: Path, door: Door, fetch: FetchSettings, fields: dict[str, Any], *brought: bytes) -> Job:
    """What becomes of a request that comes through a door."""

    async def scenario() -> Job:
        async with running(directory, is_idle=True, render=RenderSettings(fetch=fetch)) as at:
            return await at.intake.accept(RenderParams.model_validate(fields), door, brought)

    return asyncio.run(scenario())


def test_a_request_without_an_id_gets_one_of_its_own(fetch: FetchSettings, tmp_path: Path) -> None:
    asked = {"images": [{"url": "a.png", "frames": 3}], "priority": "low", "start_timeout": 2.5, "sync_mode": True}
    first = accepted(tmp_path, Door("zmq:1"), fetch, asked)
    second = accepted(tmp_path, Door("zmq:2"), fetch, asked)
    assert first.id != second.id
    assert first.digest == second.digest
    assert (first.client, first.priority, first.sync_mode, first.progress.frames) == ("zmq:1", "low", True, 3)
    assert first.start_by == first.accepted_at + 2.5
    assert RenderRequest.model_validate(asked | {"request_id": first.id})
    assert (first.output, first.is_kept_elsewhere) == (tmp_path / "outputs" / first.id, False)


def test_a_door_may_name_the_job_its_place_and_what_lies_beside_the_manifest(tmp_path: Path) -> None:
    door = Door("spool", job_id="claim", base=tmp_path / "bundle", output=tmp_path / "out")
    job = accepted(tmp_path, door, FetchSettings(), {"images": [{"url": "a.png"}], "request_id": "mine"})
    assert (job.id, job.output, job.is_kept_elsewhere) == ("claim", tmp_path / "out", True)
    with pytest.raises(FetchFailed, match=r"images\[0\]\.url: not under a directory"):
        accepted(tmp_path, Door("zmq:1"), FetchSettings(), {"images": [{"url": "a.png"}]})


def test_the_same_request_is_known_by_all_that_it_shows_and_not_by_its_id(tmp_path: Path) -> None:
    fetch = FetchSettings(allow_roots=(tmp_path,))
    asked = {"images": [{"url": "a.png"}, {"url": "cid:0"}]}
    same = [asked, asked | {"request_id": "other"}, asked | {"progress": True}, asked | {"fps": 24}]
    others = [
        asked | {"fps": 25},
        asked | {"metadata": {}},
        asked | {"sync_mode": True},
        {"images": [{"url": "a.png"}, {"url": "cid:0", "frames": 2}]},
        {"images": [{"url": "cid:0"}, {"url": "a.png"}]},
        asked | {"attachments": [{"shape": [1, 1, 3]}]},
    ]
    [digest] = {accepted(tmp_path, Door("c"), fetch, fields, b"one").digest for fields in same}
    found = {accepted(tmp_path, Door("c"), fetch, fields, b"one").digest for fields in others}
    found |= {accepted(tmp_path, Door("c"), fetch, asked, *brought).digest for brought in [(b"two",), (b"one", b"")]}
    assert len(found - {digest}) == len(others) + 2


@pytest.mark.parametrize(
    ("layouts", "words"),
    [
        ([], "attachments: expected one entry for each of the 1 attachments, found 0"),
        ([None, None], "attachments: expected one entry for each of the 1 attachments, found 2"),
        ([{"shape": [2, 2, 3]}], "attachments[0]: expected 12 bytes for shape [2, 2, 3], found 3"),
        ([{"shape": [1, 1], "dtype": "uint16", "order": "GRAY"}], "attachments[0]: expected 2 bytes for shape [1, 1]"),
    ],
)
def test_attachments_that_are_not_what_they_are_said_to_be_are_refused(tmp_path: Path, layouts, words: str) -> None:
    asked = {"images": [{"url": "cid:0"}], "attachments": layouts}
    with pytest.raises(InvalidRequest) as raised:
        accepted(tmp_path, Door("c"), FetchSettings(), asked, b"abc")
    assert str(raised.value).startswith(words)
    assert left(tmp_path) == []


def test_a_request_is_told_in_pieces_that_make_up_its_json() -> None:
    urls = [
        f"data:image/png;base64,{'Abc+' * 700_000}",
        "a.png",
        f'data:,{"é中😀" * 3000}{chr(92) * 9}"\n\x7f',
        "b" * 5000,
    ]
    request = RenderRequest.model_validate({"images": [{"url": url} for url in urls], "request_id": "one", "crf": 3})
    parts = list(_told_in_parts(request))
    whole = request.model_dump_json(exclude={"request_id", "progress"}, exclude_defaults=True)
    assert b"".join(parts).decode() == whole
    assert max(map(len, parts)) <= 1 << 20
