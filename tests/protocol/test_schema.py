"""The request's fields: what each takes, what it refuses, and where it says the fault is."""

from typing import get_args

import pytest
from pydantic import ValidationError

from protocol.schema import Fault, ImageFrame, JobStatus, PixelLayout, Preset, RenderParams, RenderRequest, RequestId

IMAGES = [{"url": "a.png"}]


def request(**fields):
    return RenderRequest.model_validate({"images": IMAGES} | fields)


def faults(model, fields):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return [(fault["loc"], fault["msg"]) for fault in caught.value.errors()]


def test_a_request_of_the_hosted_service_works_unchanged():
    text = '{"images": [{"url": "https://example.com/a.png", "frames": 24}, {"url": "b.jpg", "frames": 48}], "fps": 24}'
    request = RenderRequest.model_validate_json(text)
    assert [(image.url, image.frames) for image in request.images] == [("https://example.com/a.png", 24), ("b.jpg", 48)]
    assert request.fps == 24
    assert RenderRequest.model_validate_json(request.model_dump_json(exclude_unset=True)) == request


def test_defaults_are_the_documented_ones():
    assert request().model_dump(exclude={"images"}) == {
        "fps": 24,
        "min_frames": None,
        "canvas": "first",
        "scaling": "auto",
        "width": None,
        "height": None,
        "resize_mode": "pad",
        "upscale": True,
        "background": "#000000",
        "on_error": "fail",
        "gaps": None,
        "crf": 20,
        "preset": "veryfast",
        "encoder": "auto",
        "max_keyframe_interval": 10.0,
        "timecode": None,
        "audio": (),
        "length": "stills",
        "loudness": None,
        "audio_codec": "aac",
        "audio_bitrate": 192_000,
        "poster": None,
        "contact_sheet": None,
        "sync_mode": False,
        "output": None,
        "request_id": None,
        "priority": "normal",
        "start_timeout": None,
        "webhook_url": None,
        "metadata": None,
    }
    assert request().images[0].frames == 1


GOOD = [
    ("fps", [1, 120, 12.5, 23.976, 29.97, 59.94, 119.88, "24", "29.97", "30000/1001", "24000/1001", "120/1", "auto"]),
    ("width", [2, 3, 4096, None]),
    ("height", [2, 3, 4096, None]),
    ("resize_mode", ["pad", "crop", "stretch"]),
    ("upscale", [True, False]),
    ("background", ["#000000", "#ffFF09"]),
    ("on_error", ["fail", "skip", "hold"]),
    ("crf", [0, 51]),
    ("preset", get_args(Preset)),
    ("encoder", ["auto", "nvenc", "libx264"]),
    ("max_keyframe_interval", [0.001, 1, 3600]),
    ("timecode", ["00:00:00:00", "23:59:59;29", None]),
    ("sync_mode", [True, False]),
    ("request_id", ["a", "A.b_c-1", "0" * 128, None]),
    ("priority", ["normal", "low"]),
    ("start_timeout", [0.5, None]),
    ("webhook_url", ["https://example.com/done", None]),
    ("metadata", [{"a": [1, None, {"b": 2}]}, {}, None]),
]

BAD = [
    ("fps", [0, 0.999, 121, 120.001, -24, None, True, [24], {}, "", "fast", " 24", "24 ", "+24", "2_4", "2.4e1"]),
    ("fps", ["30000/0", "0/1", "1/2", "24/1/1", "٢٤", "nan", "inf", "100000/3001", "1e999999999", "1e-999999999"]),
    ("fps", [float("nan"), float("inf"), -float("inf"), 10**400, "9" * 10_000]),
    ("width", [1, 0, -2, 2.5, True, "wide", 2**31]),
    ("height", [1, 0, -2, 2.5, True, "high", 2**31]),
    ("resize_mode", ["fit", "PAD", None, 1]),
    ("upscale", [None, "perhaps", 2]),
    ("background", ["000000", "#000", "black", "#00000g", "#0000000", "#000000\n", None]),
    ("on_error", ["ignore", "", None, True]),
    ("crf", [-1, 52, 20.5, True, None, "low"]),
    ("preset", ["placebo", "", None]),
    ("encoder", ["h264_nvenc", "x264", None]),
    ("max_keyframe_interval", [0, -1, float("inf"), float("nan"), True, None]),
    ("timecode", ["", "1:00:00:00", "01:00:00", "01:00:00.00", "01:00:00:00\n", "٠١:00:00:00", 7]),
    ("sync_mode", [None, 2, "often"]),
    ("request_id", ["", "-a", ".a", "a/b", "a b", "a\n", "ä", "a" * 129, 7]),
    ("priority", ["high", None]),
    ("start_timeout", [0, -1, True, float("inf")]),
    ("webhook_url", [7]),
    ("metadata", ["text", [1], 7]),
    ("images", [[], None, {}, "a.png", 7]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD for value in values])
def test_a_field_takes(name, value):
    assert getattr(request(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{str(value)[:20]!r}") for name, values in BAD for value in values],
)
def test_a_field_refuses_and_is_named(name, value):
    assert [loc for loc, _ in faults(RenderRequest, {"images": IMAGES} | {name: value})] == [(name,)]


def test_a_number_keeps_its_type():
    assert type(request(fps=24).fps) is int
    assert type(request(fps=24.0).fps) is float
    assert type(request(fps="24").fps) is str


@pytest.mark.parametrize(
    ("image", "loc"),
    [
        ({"frames": 1}, ("images", 0, "url")),
        ({"url": ""}, ("images", 0, "url")),
        ({"url": 7}, ("images", 0, "url")),
        ({"url": "a", "frames": 0}, ("images", 0, "frames")),
        ({"url": "a", "frames": 1.5}, ("images", 0, "frames")),
        ({"url": "a", "frames": True}, ("images", 0, "frames")),
        ({"url": "a", "frames": 2**31}, ("images", 0, "frames")),
        ({"url": "a", "duration": 0}, ("images", 0, "duration")),
        ({"url": "a", "duration": True}, ("images", 0, "duration")),
        ({"url": "a", "duration": float("inf")}, ("images", 0, "duration")),
        ({"url": "a", "seconds": 1}, ("images", 0, "seconds")),
        ({"url": "a", "frames": 1, "duration": 1.0}, ("images", 0)),
    ],
)
def test_a_fault_in_an_image_is_placed(image, loc):
    assert [place for place, _ in faults(RenderRequest, {"images": [image]})] == [loc]


def test_no_images_are_too_few():
    assert faults(RenderRequest, {"images": []}) == [
        (("images",), "List should have at least 1 item after validation, not 0")
    ]


def test_frames_and_duration_exclude_each_other():
    assert (
        "expected frames or duration, found both" in faults(ImageFrame, {"url": "a", "frames": 1, "duration": 1})[0][1]
    )
    assert ImageFrame(url="a", duration=0.5).duration == 0.5
    assert ImageFrame(url="a", frames=3, duration=None).frames == 3


@pytest.mark.parametrize("model", [RenderRequest, RenderParams])
def test_an_unknown_field_is_an_error(model):
    assert faults(model, {"images": IMAGES, "frame_rate": 24})[0][0] == ("frame_rate",)


def test_a_request_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        request().fps = 30


def test_only_params_know_attachments_and_progress():
    assert {loc for loc, _ in faults(RenderRequest, {"images": IMAGES, "attachments": [], "progress": True})} == {
        ("attachments",),
        ("progress",),
    }
    params = RenderParams.model_validate({"images": IMAGES, "attachments": [None, {"shape": [2, 3, 3]}]})
    assert params.attachments == (None, PixelLayout(shape=(2, 3, 3)))
    assert params.progress is False


@pytest.mark.parametrize(
    ("layout", "size_bytes"),
    [
        ({"shape": [1080, 1920, 3]}, 6_220_800),
        ({"shape": [2, 3, 4], "order": "BGRA"}, 24),
        ({"shape": [2, 3], "order": "GRAY"}, 6),
        ({"shape": [2, 3, 1], "order": "GRAY", "dtype": "uint16"}, 12),
        ({"shape": [2, 3, 3], "order": "BGR", "dtype": "uint16"}, 36),
    ],
)
def test_a_layout_knows_its_size(layout, size_bytes):
    assert PixelLayout.model_validate(layout).size_bytes == size_bytes


@pytest.mark.parametrize(
    ("layout", "loc"),
    [
        ({}, ("shape",)),
        ({"shape": [3]}, ("shape",)),
        ({"shape": [1, 2, 3, 4]}, ("shape",)),
        ({"shape": [0, 2, 3]}, ("shape", 0)),
        ({"shape": [0, 2], "order": "GRAY"}, ("shape", 0)),
        ({"shape": [2, True, 3]}, ("shape", 1)),
        ({"shape": [2, 2**31, 3]}, ("shape", 1)),
        ({"shape": [2, 2, 3], "dtype": "float32"}, ("dtype",)),
        ({"shape": [2, 2, 3], "order": "YUV"}, ("order",)),
        ({"shape": [2, 2, 3], "strides": [1, 1, 1]}, ("strides",)),
        ({"shape": [2, 2, 3], "order": "RGBA"}, ()),
        ({"shape": [2, 2], "order": "RGB"}, ()),
    ],
)
def test_a_layout_refuses_and_names(layout, loc):
    assert [place for place, _ in faults(PixelLayout, layout)] == [loc]


@pytest.mark.parametrize("request_id", ["", "a" * 129, None, 7])
def test_a_request_id_is_asked_for_as_text(request_id):
    assert faults(RequestId, {"request_id": request_id})[0][0] == ("request_id",)


def test_answers_may_grow_fields_that_this_version_does_not_know():
    status = JobStatus.model_validate(
        {
            "request_id": "a",
            "status": "COMPLETED",
            "progress": {"images": 1, "frames": 1, "eta_s": 3},
            "error": {"type": "not_found", "message": "gone", "loc": ["images", 0], "hint": "?"},
            "node": "n1",
        }
    )
    assert status.error == Fault(type="not_found", message="gone", loc=("images", 0))


def test_the_schema_can_be_published():
    properties = RenderRequest.model_json_schema()["properties"]
    assert {kind["type"] for kind in properties["fps"]["anyOf"]} == {"integer", "number", "string"}
    assert (properties["crf"]["minimum"], properties["crf"]["maximum"]) == (0, 51)
    assert properties["images"]["minItems"] == 1
