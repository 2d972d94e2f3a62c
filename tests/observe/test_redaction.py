"""Secrets, forged lines and length: what a text from outside loses before it is logged."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer.observe.redaction import MAX_CHARACTERS, bounded, printable, redact, without_directories

SECRET = "hunter2"
PAYLOAD = base64.b64encode(b"a picture of somebody" * 40).decode()
WRAPPED = base64.encodebytes(b"a picture of somebody" * 40).decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no colon at all, just? a=b", "no colon at all, just? a=b"),
        ("invalid data: expected x, found y", "invalid data: expected x, found y"),
        ("metadata:a,b stays", "metadata:a,b stays"),
        ("at tcp://127.0.0.1:5590, soon", "at tcp://127.0.0.1:5590, soon"),
        ("see https://example.com/a/p@2x.png.", "see https://example.com/a/p@2x.png."),
        ("images[3].url: expected a PNG", "images[3].url: expected a PNG"),
        (f"found 'data:image/png;base64,{PAYLOAD}'", f"found 'data:image/png;… ({len(PAYLOAD) + 1} bytes)"),
        (f'{{"url":"data:image/png;base64,{PAYLOAD}"}}', f'{{"url":"data:image/png;… ({len(PAYLOAD)} bytes)"}}'),
        ("DATA:text/plain,abc is no image", "data:text/plain;… (3 bytes) is no image"),
        ("data:,abc", "data:;… (3 bytes)"),
        ("https://bob:hunter2@example.com/a.png failed", "https://…@example.com/a.png failed"),
        ("https://hunter2@example.com", "https://…@example.com"),
        ("s3://key:hunter2@bucket/a.png", "s3://…@bucket/a.png"),
        ("http://proxy/http://bob:hunter2@host/a", "http://proxy/http://…@host/a"),
        ("https://h/a?sig=hunter2&x=1;y=2 failed", "https://h/a?sig=…&x=…;y=… failed"),
        ("https://h/a?hunter2", "https://h/a?…"),
        ("https://h/a#access_token=hunter2", "https://h/a#…"),
        ('<img src="https://h/a?t=hunter2">', '<img src="https://h/a?t=…">'),
        ('https://h:443 "GET /a?sig=hunter2 HTTP/1.1" 200', 'https://h:443 "GET /a?sig=… HTTP/1.1" 200'),
    ],
)
def test_a_line_keeps_all_but_what_may_be_secret(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{PAYLOAD}",
        f"data:image/png;base64,{WRAPPED}",
        f"data:image/png; charset=utf-8; base64,{PAYLOAD}",
        f"data:image/png;name={'n' * 300};base64,{PAYLOAD}",
        f"Data:;base64,{PAYLOAD}",
        f'data:text/plain;charset="utf-8";base64,{PAYLOAD}',
    ],
    ids=range(6),
)
def test_no_spelling_of_a_data_url_lets_its_bytes_through(url: str) -> None:
    shown = redact(f"image {url} is damaged")
    assert shown.endswith(" is damaged")
    assert PAYLOAD[:24] not in shown
    assert len(shown) < 400 + len("image  is damaged")


@given(st.text(alphabet="ab:/?#@&;=, ", max_size=40), st.text(alphabet="ab:/?#@&;=, ", max_size=40))
def test_a_password_never_comes_out_of_a_url(before: str, after: str) -> None:
    assert SECRET not in redact(f"{before} https://bob:{SECRET}@example.com/a?t={SECRET}#{SECRET} {after}")


@given(st.text())
def test_what_was_redacted_once_stays_as_it_is(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.timeout(30)  # a pattern that starts over at every character takes hours for this
@pytest.mark.parametrize(
    "part", ["data:", "data:,", "data: ", "://", "?", "?a=", "://a@", ":a", "#", "&", "data:;base64,A ", ":" + " " * 50]
)
def test_a_hostile_text_costs_no_more_than_its_length(part: str) -> None:
    text = ":" + part * (3_000_000 // len(part))
    assert len(redact(text)) <= len(text) * 3


@given(st.text())
def test_printable_text_has_one_line_whoever_splits_it(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no lone surrogate
    assert not set(shown) & set("\r\n\x1b\x00\x85\u2028\u2029\u202e")


def test_printable_text_is_left_alone() -> None:
    assert printable("Füße × 2 – 図") == "Füße × 2 – 図"
    assert printable("a\nb\x1b[2J\u202e") == r"a\nb\x1b[2J\u202e"


def test_a_long_text_keeps_both_ends() -> None:
    shown = bounded("begin" + "x" * 10 * MAX_CHARACTERS + "end")
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert len(shown) < MAX_CHARACTERS + 50
    assert f"({10 * MAX_CHARACTERS + 8} characters)" in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/opt/x/ffmpeg: 3: exec: /srv/my lib/b.so: not found", "…/ffmpeg: 3: exec: …/my lib/b.so: not found"),
        ("cannot open '/var/lib/reels/keys'", "cannot open '…/keys'"),
        ("a=/tmp/a/b,(/tmp/c)", "a=…/b,(…/c)"),
        ("24/1 frames/s and/or https://a.example/b/c.png", "24/1 frames/s and/or https://a.example/b/c.png"),
    ],
)
def test_of_absolute_paths_a_client_is_told_the_last_name(text: str, told: str) -> None:
    assert without_directories(text) == told
