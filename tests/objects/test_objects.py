"""One object read, listed, put and signed for, at a real server; and what is said where a server fails."""

import hashlib
import http.client
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from protocol.objects import parse_object, parse_prefix
from renderer.config import FetchSettings, RenderSettings
from renderer.errors import FetchFailed, FileTooLarge, InvalidRequest, NotSupported, OutputFailed, SourceUnavailable
from renderer.jobs.slots import confinement
from renderer.jobs.slots.reach import Reach
from renderer.net import objects
from renderer.net.objects import Access, access_for, check_output
from renderer.pictures.fetch import Fetcher
from tests.objects.stores import KEY, SECRET, Bucket, Moto, Scripted, answering

ONCE = Access(timeout_s=60, attempts=1)
TWICE = Access(timeout_s=60, attempts=2)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Scripted]]:
    """Return what starts a server with the given answers, and names it in the environment."""
    begun = []

    def start(*answers: object, tls: ssl.SSLContext | None = None) -> Scripted:
        begun.append(Scripted(*answers, tls=tls))  # type: ignore[arg-type]
        monkeypatch.setenv("AWS_ENDPOINT_URL", begun[-1].url)
        return begun[-1]

    objects._store.cache_clear()
    yield start  # type: ignore[misc]
    objects._store.cache_clear()
    for each in begun:
        each.close()


# Urls.


@pytest.mark.parametrize(
    "url",
    [
        *("s3://bucket", "s3://bucket/", "s3://bucket/a/", "s3:/bucket/a", "s3://Bucket/a", "s3:///a", "s4://bucket/a"),
        *("s3://user@bucket/a", "s3://user:word@bucket/a", "s3://bucket:80/a", "s3://bucket/a?b=c", "s3://bucket/a#b"),
        *("s3://bucket/a/../b", "s3://bucket//a", "s3://bucket/./a", "s3://bucket/a//b", "s3://bucket/%2e%2e/b"),
        *("s3://bucket/a%2F..%2Fb", "s3://bucket/a\\..\\b", "s3://bucket/a\nb", f"s3://bucket/{'x' * 1025}"),
        *("s3://bucket/\ud800", "s3://bucket/a%5c..%5cb", "s3://bucket/.."),
    ],
)
def test_a_url_that_might_mean_another_object_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse_object(url)


def test_prefixes_match_whole_parts_of_a_name() -> None:
    prefixes = ("s3://reels/in", "gs://all/")
    for url, is_allowed in {
        "s3://reels/in/a.png": True,
        "s3://reels/in/b/a.png": True,
        "s3://reels/in": False,
        "s3://reels/inner/a.png": False,
        "s3://reels/a.png": False,
        "s3://reels2/in/a.png": False,
        "gs://reels/in/a.png": False,
        "gs://all/a.png": True,
        "S3://reels/in/a.png": True,
    }.items():
        assert objects.is_among(parse_object(url), prefixes) is is_allowed, url


# Reading.


def fetcher(*prefixes: str, **settings: object) -> Fetcher:
    return Fetcher(FetchSettings(allow_objects=prefixes, **settings))  # type: ignore[arg-type]


def test_an_object_below_an_allowed_prefix_is_read(bucket: Bucket) -> None:
    url = bucket.put("in/a b+ü%.png", b"picture")
    assert fetcher(f"{bucket.url}/in").fetch(url) == b"picture"
    with fetcher(bucket.url).open_local(url) as handle:
        assert handle is None


def test_an_object_that_the_settings_do_not_name_is_not_asked_for(bucket: Bucket) -> None:
    url = bucket.put("out/a.png", b"picture")
    for prefixes in ((), (f"{bucket.url}/in",)):
        with pytest.raises(FetchFailed, match=r"not in a bucket that may be read \(fetch.allow_objects\)"):
            fetcher(*prefixes).fetch(url)


def test_a_missing_object_and_a_missing_bucket_are_told_apart(bucket: Bucket) -> None:
    with pytest.raises(FetchFailed, match="there is no such object"):
        fetcher(bucket.url).fetch(f"{bucket.url}/nothing.png")
    with pytest.raises(FetchFailed, match="there is no such bucket"):
        fetcher("s3://nobodys-bucket").fetch("s3://nobodys-bucket/a.png")
    with pytest.raises(FetchFailed, match="there is no such bucket"):
        next(objects.names_below(parse_prefix("s3://nobodys-bucket/a"), ONCE))


def test_an_object_that_is_too_large_is_not_read_to_its_end(bucket: Bucket) -> None:
    url = bucket.put("a.png", bytes(3000))
    assert len(fetcher(bucket.url, max_image_bytes=3000).fetch(url)) == 3000  # type: ignore[arg-type]
    with pytest.raises(FileTooLarge, match="expected at most 2999 bytes, found 3000"):
        fetcher(bucket.url, max_image_bytes=2999).fetch(url)


def test_the_version_of_an_object_changes_with_its_content(bucket: Bucket) -> None:
    source = fetcher(bucket.url)
    url = bucket.put("a.png", b"one")
    before = source.version(url)
    assert before
    assert source.version(url) == before
    bucket.put("a.png", b"two")
    assert source.version(url) != before
    assert source.version("a.png") is None


def test_names_are_listed_from_the_prefix_on(bucket: Bucket) -> None:
    for name in ("in/b.json", "in/a/c.json", "inner.json", "other/d.json"):
        bucket.put(name, b"{}")
    assert sorted(objects.names_below(parse_prefix(f"{bucket.url}/in/"), ONCE)) == ["a/c.json", "b.json"]
    assert len(list(objects.names_below(parse_prefix(bucket.url), ONCE))) == 4


# Putting.


@pytest.mark.parametrize("name", ["a//b.json", "../b.json", "./b.json", "a%09b.json"])
def test_a_name_that_hinders_the_listing_is_described(bucket: Bucket, moto: Moto, name: str) -> None:
    bucket.put("in/a.json", b"{}")
    put = http.client.HTTPConnection("127.0.0.1", moto.port)  # which sends the name as it is
    put.request("PUT", f"/{bucket.name}/in/{name}", b"{}")
    put.getresponse().read()
    put.close()
    with pytest.raises(FetchFailed, match=r"a name with an empty part, '\.', '\.\.' or a control character"):
        list(objects.names_below(parse_prefix(f"{bucket.url}/in"), Access()))


def test_a_put_object_tells_its_type_and_its_checksum(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    objects.put_file(parse_object(f"{bucket.url}/out/a.mp4"), tmp_path / "a.mp4", "video/mp4", "a", ONCE)
    assert bucket.get("out/a.mp4") == b"video"
    assert bucket.about("out/a.mp4") == {
        "Content-Type": "video/mp4",
        "sha256": hashlib.sha256(b"video").hexdigest(),
        "stillreel": "a",
    }


def test_the_same_content_may_be_put_again_and_another_may_not(bucket: Bucket) -> None:
    place = parse_object(f"{bucket.url}/a.mp4")
    for made_for in ("a", "b"):
        assert objects.put(place, b"video", "video/mp4", made_for, ONCE) == 5
    with pytest.raises(InvalidRequest, match="exists already and has another content") as caught:
        objects.put(place, b"other", "video/mp4", "b", ONCE)
    assert caught.value.loc == ("output", "url")
    assert bucket.get("a.mp4") == b"video"


def test_what_was_put_for_the_same_stays_and_will_do(bucket: Bucket) -> None:
    place = parse_object(f"{bucket.url}/a.mp4")
    objects.put(place, b"video", "video/mp4", "a", ONCE)
    assert objects.put(place, b"video of a second later", "video/mp4", "a", ONCE) == 5
    assert bucket.get("a.mp4") == b"video"


def test_what_another_program_has_put_is_compared_by_its_content(bucket: Bucket) -> None:
    place = parse_object(bucket.put("a.mp4", b"video"))
    objects.put(place, b"video", "video/mp4", "a", ONCE)
    with pytest.raises(InvalidRequest, match="exists already"):
        objects.put(place, b"other", "video/mp4", "a", ONCE)


def test_a_put_into_a_missing_bucket_is_final(bucket: Bucket) -> None:
    with pytest.raises(InvalidRequest, match=r"output.url: the video could not be put: there is no such bucket"):
        objects.put(parse_object("s3://nobodys-bucket/a.mp4"), b"video", "video/mp4", "a", ONCE)


def test_a_file_larger_than_one_put_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.mp4").open("wb") as file:
        file.truncate(objects.MOST_BYTES + 1)
    with pytest.raises(InvalidRequest, match="expected a video of up to 5368709120 bytes"):
        objects.put_file(parse_object("s3://bucket/a.mp4"), tmp_path / "a.mp4", "video/mp4", "a", ONCE)


def test_a_signed_url_opens_the_object_for_everybody(bucket: Bucket) -> None:
    url = objects.signed(parse_object(bucket.put("a b.mp4", b"video")), 60, ONCE)
    assert SECRET not in url
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == b"video"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://reels/out/a.mov", "a name that ends in .mp4"),
        ("s3://reels/in/a.mp4", r"not in a bucket that may be written \(outputs.allow_objects\)"),
    ],
)
def test_an_output_elsewhere_is_refused_at_its_field(url: str, words: str) -> None:
    check_output("s3://reels/out/a.mp4", ("s3://reels/out",))
    with pytest.raises(InvalidRequest, match=words) as caught:
        check_output(url, ("s3://reels/out",))
    assert caught.value.loc == ("output", "url")


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = r"object storage needs the extra `objects`: pip install 'stillreel\[objects\]'"
    with pytest.raises(NotSupported, match=words):
        fetcher("s3://reels").check("s3://reels/a.png")
    with pytest.raises(NotSupported, match=words):
        check_output("s3://reels/a.mp4", ("s3://reels",))


# Servers that fail, and one with a certificate of its own.


def test_a_confined_worker_trusts_the_authority_that_the_settings_name(
    scripted: type[Scripted], tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    scripted(answering(200, body=b"picture"), tls=tls)
    place = parse_object("s3://reels/a.png")
    with pytest.raises(SourceUnavailable, match="the store does not answer"):
        objects.read(place, 100, ONCE)
    fetch = FetchSettings(allow_objects=("s3://reels",), ca_file=tmp_path / "ca.pem")
    token = tmp_path / "token"
    token.write_text("ours")
    secret = tmp_path / "secret"
    secret.write_text("another's")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        roots = Reach(RenderSettings(fetch=fetch))(None)
    if confinement.refusal():
        pytest.skip("this kernel confines nobody")
    assert confinement.confined(roots, lambda: objects.read(place, 100, access_for(fetch))) == b"picture"
    assert confinement.confined(roots, token.read_text) == "ours"
    with pytest.raises(PermissionError):
        confinement.confined(roots, secret.read_text)


def test_a_server_that_is_busy_once_is_asked_again(scripted: type[Scripted]) -> None:
    server = scripted(answering(503, "SlowDown"), answering(200, body=b"picture"))
    assert objects.read(parse_object("s3://reels/a.png"), 100, TWICE) == b"picture"
    assert server.asked == ["GET /reels/a.png"] * 2


def test_a_server_that_stays_busy_may_be_asked_later(scripted: type[Scripted]) -> None:
    scripted(answering(503, "SlowDown"))
    with pytest.raises(SourceUnavailable, match=r"the store answered 503 \(SlowDown\)") as caught:
        objects.read(parse_object("s3://reels/a.png"), 100, ONCE)
    assert caught.value.fault().retryable
    with pytest.raises(OutputFailed, match=r"could not be put: the store answered 503 \(SlowDown\)"):
        objects.put(parse_object("s3://reels/a.mp4"), b"video", "video/mp4", "a", ONCE)


def test_a_wrong_key_is_final_and_stays_unsaid(scripted: type[Scripted]) -> None:
    scripted(answering(403, "SignatureDoesNotMatch"))
    for call in (
        lambda: objects.read(parse_object("s3://reels/a.png"), 100, TWICE),
        lambda: objects.put(parse_object("s3://reels/a.mp4"), b"video", "video/mp4", "a", TWICE),
        lambda: next(objects.names_below(parse_prefix("s3://reels"), TWICE)),
    ):
        with pytest.raises((FetchFailed, InvalidRequest), match=r"403|refuses access \(SignatureDoesNot") as caught:
            call()
        assert not caught.value.fault().retryable
        assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"
        assert caught.value.__suppress_context__


def test_a_server_that_does_not_answer_in_time_may_be_asked_later(scripted: type[Scripted]) -> None:
    scripted(lambda _: (time.sleep(2), (200, b"late"))[1])
    with pytest.raises(SourceUnavailable, match="the store does not answer"):
        objects.read(parse_object("s3://reels/a.png"), 100, Access(timeout_s=0.5, attempts=1))
