import base64
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.schema import PixelLayout
from renderer.config import FetchSettings
from renderer.errors import FetchFailed, FileTooLarge, JobError, NotSupported
from renderer.pictures.decode import opened
from renderer.pictures.fetch import Fetcher
from renderer.work import Attachment
from tests.net.serving import redirects, says, sends, serving

PAYLOAD = bytes(range(256)) * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "a.png").write_bytes(PAYLOAD)
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


def fetcher(*roots: Path, base: Path | None = None, any_path: bool = False, **settings: object) -> Fetcher:
    return Fetcher(FetchSettings(allow_roots=roots, **settings), base=base, any_path=any_path)  # type: ignore[arg-type]


# Paths.


def test_a_relative_path_is_found_under_the_first_root_that_has_it(tmp_path: Path, root: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fetcher(empty, root).fetch("a.png") == PAYLOAD


def test_paths_and_file_urls_mean_the_same_file(root: Path) -> None:
    (root / "100% ü#1.png").write_bytes(b"x")
    source = fetcher(root)
    for url in (
        str(root / "a.png"),
        f"file://{root}/a.png",
        f"file:{root}/a.png",
        f"FILE://localhost{root}/a.png",
        "file:a.png",
        "./a.png",
    ):
        source.check(url)
        assert source.fetch(url) == PAYLOAD, url
    assert source.fetch("100% ü#1.png") == b"x"
    assert source.fetch("file:100%25%20%C3%BC%231.png") == b"x"


def test_a_manifest_reads_beside_itself_and_below(tmp_path: Path, root: Path) -> None:
    base = tmp_path / "job"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "b.png").write_bytes(b"b")
    source = fetcher(root, base=base)
    assert source.fetch("sub/b.png") == b"b"
    assert source.fetch(str(root / "a.png")) == PAYLOAD
    with pytest.raises(FetchFailed, match="no such file"):
        source.fetch("a.png")


@pytest.mark.parametrize(
    "url", ["../secret.png", "x/../../secret.png", "file:%2e%2e/secret.png", "/etc/passwd", "/", ""]
)
def test_nothing_outside_the_roots_is_read_nor_accepted(root: Path, url: str) -> None:
    source = fetcher(root)
    for door in (source.check, source.fetch):
        with pytest.raises(FetchFailed) as caught:
            door(url)
        assert str(root) not in str(caught.value)


def test_without_roots_no_path_is_read(root: Path) -> None:
    with pytest.raises(FetchFailed, match="allow-root"):
        fetcher().fetch(str(root / "a.png"))


def test_a_missing_file_outside_and_a_present_one_look_the_same(tmp_path: Path, root: Path) -> None:
    messages = set()
    for name in ("secret.png", "missing.png"):
        with pytest.raises(FetchFailed) as caught:
            fetcher(root).fetch(str(tmp_path / name))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_symbolic_links_may_not_lead_out(tmp_path: Path, root: Path) -> None:
    (root / "file.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "inside.png").symlink_to(root / "a.png")
    source = fetcher(root)
    for url in ("file.png", "folder/secret.png"):
        with pytest.raises(FetchFailed, match="not under"):
            source.fetch(url)
    assert source.fetch("inside.png") == PAYLOAD


def test_a_root_that_is_a_symbolic_link_works_under_both_names(tmp_path: Path, root: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    for path in (link / "a.png", root / "a.png"):
        assert fetcher(link).fetch(str(path)) == PAYLOAD


def test_a_directory_whose_name_begins_like_a_root_is_outside(tmp_path: Path, root: Path) -> None:
    sibling = tmp_path / "allowed-not"
    sibling.mkdir()
    (sibling / "a.png").write_bytes(b"x")
    with pytest.raises(FetchFailed, match="not under"):
        fetcher(root).fetch(str(sibling / "a.png"))


@pytest.mark.timeout(10)
def test_fifos_devices_and_directories_are_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "fifo")
    for path in (str(root / "fifo"), "/dev/zero", "/dev/stdin", str(root)):
        with pytest.raises(FetchFailed):
            fetcher(any_path=True).fetch(path)
    with pytest.raises(FetchFailed, match="regular file"):
        fetcher(root).fetch("fifo")


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    with (root / "big.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileTooLarge, match="at most 1024 bytes"):
        fetcher(root, max_image_bytes=1024).fetch("big.png")
    assert fetcher(root, max_image_bytes=1024).fetch("a.png") == PAYLOAD


def test_a_file_that_lies_about_its_size_is_cut_at_the_limit() -> None:
    with pytest.raises(FileTooLarge):
        fetcher(any_path=True, max_image_bytes=4).fetch("/proc/self/status")


def test_the_command_line_reads_what_its_user_can(tmp_path: Path, root: Path) -> None:
    assert fetcher(base=root, any_path=True).fetch("../secret.png") == b"secret"
    assert fetcher(any_path=True).fetch(str(tmp_path / "secret.png")) == b"secret"


def test_file_urls_of_other_hosts_are_refused(root: Path) -> None:
    with pytest.raises(FetchFailed, match="without a host"):
        fetcher(root).check(f"file://example.org{root}/a.png")


def test_unknown_schemes_are_refused_by_name(root: Path) -> None:
    for door in (fetcher(root).check, fetcher(root).fetch):
        with pytest.raises(NotSupported, match=r"file, data, cid, http, https, s3, gs, az, found ftp:"):
            door("ftp://host/a.png")


# data: urls.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:,A%20brief%20note", b"A brief note"),
        ("data:image/png;base64," + base64.b64encode(PAYLOAD).decode(), PAYLOAD),
        ("DATA:image/png;charset=x;BASE64,aGk=", b"hi"),
        ("data:;base64,aGk", b"hi"),
        ("data:;base64,aG%6b%3D", b"hi"),
        ("data:;base64,a G\nk=", b"hi"),
        ("data:image/svg+xml,%00%ff,", b"\x00\xff,"),
    ],
)
def test_data_urls_are_read_as_rfc_2397_has_them(url: str, expected: bytes) -> None:
    fetcher().check(url)
    assert fetcher().fetch(url) == expected


def test_broken_data_urls_are_refused() -> None:
    with pytest.raises(FetchFailed, match="comma"):
        fetcher().check("data:image/png;base64")
    for payload in ("a", "a*bc", "aG=k"):
        with pytest.raises(FetchFailed, match="base64"):
            fetcher().fetch(f"data:;base64,{payload}")


def test_large_data_urls_are_refused() -> None:
    source = fetcher(max_image_bytes=3)
    assert source.fetch("data:;base64,YWJj") == b"abc"
    with pytest.raises(FileTooLarge):
        source.fetch("data:;base64,YWJjZA==")
    with pytest.raises(FileTooLarge):
        source.check("data:;base64," + "A" * 100)


@settings(deadline=None)
@given(st.text())
def test_whatever_the_url_only_our_errors_come_out(url: str) -> None:
    source = Fetcher(FetchSettings(allow_roots=(Path("/nonexistent-root"),)))
    for door in (source.check, source.fetch):
        try:
            door(url)
        except JobError:
            continue


@settings(deadline=None)
@given(st.sampled_from(["data:", "data:;base64,", "cid:", "file:", "file://", "http://", "https:"]), st.text())
def test_whatever_follows_a_scheme_only_our_errors_come_out(scheme: str, rest: str) -> None:
    source = Fetcher(FetchSettings())
    try:
        source.check(scheme + rest)
        if not scheme.startswith("http"):
            source.fetch(scheme + rest)
    except JobError:
        return


# Attachments.


def attached(path: Path, layout: PixelLayout | None = None) -> Fetcher:
    return Fetcher(FetchSettings(max_image_bytes=2048), attachments=(Attachment(path, layout),))


def test_an_attached_file_is_read_by_number(root: Path) -> None:
    source = attached(root / "a.png")
    source.check("cid:0")
    assert source.fetch("cid:0") == PAYLOAD


@pytest.mark.parametrize("url", ["cid:1", "cid:-1", "cid:", "cid:x", "cid:²", "cid:99999999999"])
def test_attachments_that_are_not_there_are_refused(root: Path, url: str) -> None:
    for door in (attached(root / "a.png").check, attached(root / "a.png").fetch):
        with pytest.raises(FetchFailed, match=r"cid:0|1 attachments"):
            door(url)


@pytest.mark.parametrize(
    ("order", "to_bgr"), [("BGR", [0, 1, 2]), ("RGB", [2, 1, 0]), ("BGRA", [0, 1, 2, 3]), ("RGBA", [2, 1, 0, 3])]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_raw_pixels_come_as_8_bit_bgr(tmp_path: Path, order: str, to_bgr: list[int], dtype: str) -> None:
    small = np.random.default_rng(1).integers(0, 256, (3, 5, len(order)), dtype=np.uint8)
    sent = small if dtype == "uint8" else small.astype("<u2") * 257
    (tmp_path / "raw").write_bytes(sent.tobytes())
    layout = PixelLayout(shape=sent.shape, dtype=dtype, order=order)  # type: ignore[arg-type]
    found = opened(attached(tmp_path / "raw", layout).fetch("cid:0"))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.uint8
    assert np.array_equal(found, small[..., to_bgr])


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1)])
def test_raw_grey_pixels_have_two_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(15)))
    layout = PixelLayout(shape=shape, order="GRAY")  # type: ignore[arg-type]
    found = opened(attached(tmp_path / "raw", layout).fetch("cid:0"))
    assert isinstance(found, np.ndarray)
    assert found.shape == (3, 5)


@pytest.mark.parametrize("size_bytes", [0, 44, 46])
def test_raw_pixels_of_the_wrong_length_are_refused(tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "raw").write_bytes(bytes(size_bytes))
    with pytest.raises(FetchFailed, match=r"expected 45 bytes for shape \[3, 5, 3\]"):
        attached(tmp_path / "raw", PixelLayout(shape=(3, 5, 3))).fetch("cid:0")


def test_a_lost_attachment_does_not_tell_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed) as caught:
        attached(tmp_path / "gone").fetch("cid:0")
    assert str(tmp_path) not in str(caught.value)


# http and https; more in test_download.


def test_http_reaches_public_addresses_only_unless_a_network_is_named() -> None:
    with serving({"/a": sends(PAYLOAD), "/b": redirects("/a")}) as site:
        for url in (f"{site.url}/a", f"http://localhost:{site.port}/a", f"HTTP://127.1:{site.port}/b"):
            with pytest.raises(FetchFailed, match="public address"):
                fetcher().fetch(url)
            with pytest.raises(FetchFailed, match="public address"):
                fetcher(any_path=True, allow_networks="10.0.0.0/8").fetch(url)
        assert site.connections == 0
        assert fetcher(allow_networks="10.0.0.0/8, 127.0.0.0/8").fetch(f"HTTP://127.1:{site.port}/b") == PAYLOAD


def test_http_may_be_switched_off_whatever_the_networks() -> None:
    with serving({"/a": sends(PAYLOAD)}) as site:
        source = fetcher(allow_http=False, allow_networks="127.0.0.0/8")
        for door in (source.check, source.fetch):
            for scheme in ("http", "https", "HTTP"):
                with pytest.raises(FetchFailed, match=r"fetch\.allow_http"):
                    door(site.url.replace("http", scheme))
        assert site.connections == 0


def test_the_settings_bound_a_download() -> None:
    drips = says(b"HTTP/1.1 200 OK\r\n\r\n", then=b"x", times=200, pause_s=0.05)
    with serving({"/a": sends(PAYLOAD), "/b": redirects("/a"), "/c": drips}) as site:
        for limit, url, words in (
            ({"max_image_bytes": 1000}, "/a", "at most 1000 bytes"),
            ({"max_redirects": 0}, "/b", "at most 0 redirects"),
            ({"download_timeout_s": 0.3}, "/c", r"longer than 0\.3 s"),
        ):
            with pytest.raises(JobError, match=words):
                fetcher(allow_networks="127.0.0.0/8", **limit).fetch(site.url + url)


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a.png", "http:a.png", "http://[::1", "https://exa mple:x/", "http://a:0/", "http://a:65536/"],
)
def test_malformed_http_urls_are_refused_before_any_work(url: str) -> None:
    with pytest.raises(FetchFailed):
        fetcher().check(url)
