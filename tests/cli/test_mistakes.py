"""What people typically mistype, really typed, and the whole message that they get."""

import json
from pathlib import Path

import pytest

from tests.cli_process import failed, run
from tests.daemon_process import picture

A, B = {"url": "a.ppm"}, {"url": "b.ppm"}
VOICE = 'audio=[{"url":"voice.wav"}]'
TWICE = "audio: give sounds by --audio or by the field audio, not both"
BUCKET = 'output={"url":"s3://reels/x.mp4"}'
OF_DAEMONS = "--set output: only a daemon takes it; render writes files, and batch --out s3://... objects"
GONE = "tcp://127.0.0.1:9"

MANIFESTS: dict[str, object] = {
    "good": {"images": [A]},
    "missing": {"images": [A, {"url": "missing.png"}]},
    "field": {"images": [{"url": "a.ppm", "frame": 24}]},
    "three": {"images": [{"url": "a.ppm", "frames": 0}, {"frames": 1}], "crf": 99},
    "texts": {"images": ["a.ppm", "b.ppm"]},
    "object": {"images": {"url": "a.ppm"}},
    "empty": {"images": []},
    "both": {"images": [{"url": "a.ppm", "frames": 1, "duration": 1}]},
    "half": {"images": [{"url": "a.ppm", "frames": 1.5}]},
    "mode": {"images": [A], "resize_mode": "fit"},
    "none": {"pictures": [A]},
    "long": {"images": [A, B]},
    "sound": {"images": [A], "audio": [{"url": "voice.wav"}]},
}

MISTAKES: list[tuple[list[str], int, str, dict[str, str]]] = [
    (["render", "a.ppm"], 2, "expected -o and a name for the video: stillreel render a.ppm -o video.mp4", {}),
    (["render", "a.ppm", "-o", "a.ppm"], 2, "output: expected a name that ends in .mp4, .m4v or .mov, found a.ppm", {}),
    (["render", "a.ppm", "-o", "x.gif"], 2, "output: expected a name that ends in .mp4, .m4v or .mov, found x.gif", {}),
    (["render", "a.ppm", "-o", "no/x.mp4"], 2, "output: expected a directory that exists, found no", {}),
    (["render", "nowhere.png", "-o", "x.mp4"], 2, "nowhere.png: no such file", {}),
    (["render", "*.jpg", "-o", "x.mp4"], 2, "*.jpg: no image has such a name", {}),
    (["render", "f_%04d.png", "-o", "x.mp4"], 2, "f_%04d.png: no file has such a name", {}),
    (
        ["render", "a.ppm", "good.json", "-o", "x.mp4"],
        2,
        "expected images, or one manifest alone; found good.json among 2 names",
        {},
    ),
    (
        ["render", "a.ppm", "--hold", "2x", "-o", "x.mp4"],
        2,
        "--hold 2x: expected frames such as 24, or seconds such as 1.5s",
        {},
    ),
    (
        ["render", "good.json", "--hold", "24", "-o", "x.mp4"],
        2,
        "--hold is for images; good.json is a manifest, which has frames or duration for every image",
        {},
    ),
    (["render", "missing.json", "-o", "x.mp4"], 1, "images[1].url: missing.png: no such file", {}),
    (["render", "field.json", "-o", "x.mp4"], 2, "images[0].frame: no such field; did you mean frames?", {}),
    (
        ["render", "three.json", "-o", "x.mp4"],
        2,
        (
            "images[0].frames: expected at least 1, found 0; images[1].url: expected a value, found none; "
            "crf: expected at most 51, found 99"
        ),
        {},
    ),
    (
        ["render", "texts.json", "-o", "x.mp4"],
        2,
        (
            'images[0]: expected an object such as {"url": "a.png"}, found \'a.ppm\'; '
            'images[1]: expected an object such as {"url": "a.png"}, found \'b.ppm\''
        ),
        {},
    ),
    (["render", "object.json", "-o", "x.mp4"], 2, "images: expected a list, found {'url': 'a.ppm'}", {}),
    (["render", "empty.json", "-o", "x.mp4"], 2, "images: expected at least 1, found 0", {}),
    (["render", "both.json", "-o", "x.mp4"], 2, "images[0]: expected frames or duration, found both", {}),
    (["render", "half.json", "-o", "x.mp4"], 2, "images[0].frames: expected a whole number, found 1.5", {}),
    (
        ["render", "mode.json", "-o", "x.mp4"],
        2,
        "resize_mode: expected 'pad', 'crop' or 'stretch', found 'fit'",
        {},
    ),
    (
        ["render", "none.json", "-o", "x.mp4"],
        2,
        "images: expected a value, found none; pictures: no such field",
        {},
    ),
    (
        ["render", "long.json", "-o", "x.mp4"],
        2,
        "images: expected up to 1 images, found 2 (limits.max_images)",
        {"STILLREEL_LIMITS__MAX_IMAGES": "1"},
    ),
    (
        ["render", "good.json", "-o", "x.mp4"],
        1,
        "images[0].url: a.ppm: expected at most 9 bytes, found 9229 or more (fetch.max_image_bytes)",
        {"STILLREEL_FETCH__MAX_IMAGE_BYTES": "9"},
    ),
    (
        ["render", "good.json", "-o", "x.mp4"],
        2,
        "environment: STILLREEL_WORKERS is not a setting; did you mean STILLREEL_ENGINE__WORKERS?",
        {"STILLREEL_WORKERS": "3"},
    ),
    (
        ["serve", "--bind", "127.0.0.1:5590"],
        2,
        (
            "settings: server.bind: expected an address that begins with tcp:// or ipc://, found '127.0.0.1:5590'; "
            "did you mean tcp://127.0.0.1:5590?"
        ),
        {},
    ),
    (
        ["jobs", "--connect", "127.0.0.1:5590"],
        2,
        (
            "--connect: expected an address that begins with tcp:// or ipc://, found '127.0.0.1:5590'; "
            "did you mean tcp://127.0.0.1:5590?"
        ),
        {},
    ),
    (
        ["jobs"],
        2,
        "environment: STILLREEL_CONECT is not a setting; did you mean STILLREEL_CONNECT?",
        {"STILLREEL_CONECT": GONE},
    ),
    (["render", "a.ppm", "--audio", "m.mp3", "--set", VOICE, "-o", "x.mp4"], 2, TWICE, {}),
    (["render", "a.ppm", "--set", VOICE, "--audio", "m.mp3", "-o", "x.mp4"], 2, TWICE, {}),
    (["submit", "sound.json", "--audio", "m.mp3"], 2, TWICE, {}),
    (["batch", ".", "--out", ".", "--audio", "m.mp3", "--set", VOICE], 2, TWICE, {}),
    (
        ["render", "a.ppm", "--length", "audio", "-o", "x.mp4"],
        2,
        "--length audio needs a sound: add --audio FILE",
        {},
    ),
    (
        ["render", "a.ppm", "--set", 'audio=[{"url":"m.mp3",}]', "-o", "x.mp4"],
        2,
        "--set audio: expected JSON: trailing comma at line 1 column 17",
        {},
    ),
    (["submit", "a.ppm", "--set", "fps"], 2, "--set fps: a value is missing, as in fps=30", {}),
    (
        ["submit", "a.ppm", "--set", "gain_db=3"],
        2,
        "--set gain_db: gain_db belongs to a sound, as in audio=[{...}]",
        {},
    ),
    (["submit", "a.ppm", "--set", "title=x"], 2, "--set title: title belongs to an image, in a manifest", {}),
    (
        ["submit", "a.ppm", "--set", 'output={"url":"s3://reels/x.mp4"}', "--wait", "-o", "x.mp4"],
        2,
        "-o fetches the video, but output puts it into a bucket: leave one out",
        {},
    ),
    (
        ["render", "a.ppm", "-o", "x.mp4", "--stills", "b.ppm"],
        2,
        "stills: expected a directory, found the file b.ppm",
        {},
    ),
    (["batch", ".", "--out", "a.ppm"], 2, "--out a.ppm: expected a directory, found a file", {}),
    (["render", "a.ppm", "--set", BUCKET, "-o", "x.mp4"], 2, OF_DAEMONS, {}),
    (["batch", ".", "--out", ".", "--set", BUCKET], 2, OF_DAEMONS, {}),
    (
        ["render", "http://127.0.0.1:9/a.png", "-o", "x.mp4"],
        1,
        (
            "images[0].url: http://127.0.0.1:9/a.png: expected a host with a public address "
            "(fetch.allow_networks allows others)"
        ),
        {},
    ),
    (
        ["submit", "s3://reels/a.png", "--connect", GONE],
        3,
        f"no answer from {GONE} for 5 s; start a daemon with: stillreel serve",
        {},
    ),
    (["ray-node", "--address", "foo"], 2, "--address: expected HOST:PORT, found 'foo'", {}),
    (["ray-node", "--address", "foo:xx"], 2, "--address: expected HOST:PORT, found 'foo:xx'", {}),
    (
        ["ray-node", "--address", "127.0.0.1:1"],
        2,
        (
            "--address: no head of a cluster answers at 127.0.0.1:1 (Connection refused); begin one with: "
            "stillreel ray-node --slots 0 --port 1"
        ),
        {"RAY_AUTH_TOKEN": "0" * 32},
    ),
    (
        ["ray-node", "--port", "10002"],
        2,
        "--port: expected a port below 10002 or above 19999, found 10002; Ray gives those between to its processes",
        {"RAY_AUTH_TOKEN": "0" * 32},
    ),
    (["jobs", "--connect", GONE], 3, f"no answer from {GONE} for 5 s; start a daemon with: stillreel serve", {}),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("a.ppm", "b.ppm"):
        (tmp_path / name).write_bytes(picture((1, 2, 3), 64, 48))
    for name, manifest in MANIFESTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "words", "environment"), MISTAKES, ids=[f"{n}" for n in range(len(MISTAKES))]
)
def test_a_typical_mistake_is_told_in_full(
    here: Path, arguments: list[str], code: int, words: str, environment: dict[str, str]
) -> None:
    before = {path.name for path in here.iterdir()}
    assert failed(run(*arguments, cwd=here, **environment), code) == f"error: {words}"
    assert {path.name for path in here.iterdir()} == before
