"""How much a JSON document may hold, counted before it is parsed."""

import json
import tracemalloc

import pytest

from protocol.documents import DocumentRefused, most_values, read_document

URL = "data:image/png;base64," + "iVBORw0KGgo" * 20
LONG = 70_000  # more than is looked at in one go


@pytest.mark.parametrize(
    "document",
    [
        {"images": [{"url": URL, "frames": 2}] * 10_000},
        {"images": [{"url": URL, "frames": 2, "duration": None, "later": 1}] * 10_000, "metadata": [1] * 50_000},
        {"metadata": '{"a": [1, 2, {"b": 3}]}, ' * 40_000},
        {"metadata": ['",[{:' * 100_000, "\\" * LONG, '\\"' * LONG, "\\" * (LONG + 1) + ",,"]},
        {"metadata": "," * 400_000, "é€": "\u2028" * LONG},
        [],
        "text",
        None,
        1e308,
    ],
)
def test_honest_documents_are_read_whatever_their_strings_hold(document: object) -> None:
    assert read_document(json.dumps(document).encode()) == document
    assert read_document(json.dumps(document, ensure_ascii=False)) == document


@pytest.mark.parametrize(
    "text",
    [
        b'{"images":[' + b"1," * 300_000 + b"1]}",
        b'{"images":[' + b'{"url":"a"},' * 300_000 + b"1]}",
        b"[" + b"[]," * 300_000 + b"1]",
        b"{" + b'"\\"":1,' * 300_000 + b'"a":1}',
        b'["' + b"\\" * (2 * LONG) + b'",' + b"1," * 300_000 + b"1]",
        b'["' + b"a" * (64 * 1024 - 3) + b'\\"",' + b"1," * 300_000 + b"1]",
    ],
)
def test_a_crowded_document_is_refused_before_anything_is_made_of_it(text: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DocumentRefused, match="up to 200000 values and names, found more"):
            read_document(text)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [64 * 1024 + extra for extra in (-3, -2, -1, 0, 1, 2)])
def test_an_escape_that_is_cut_by_a_window_is_one_all_the_same(size: int) -> None:
    for tail in (r"\\", r"\"", r"\\\"", r"\\\\"):
        text = '["' + "a" * (size - 2) + tail + '",' + "1," * 20 + "1]"
        assert len(read_document(text, 22)) == 22
        with pytest.raises(DocumentRefused):
            read_document(text, 21)


def test_the_bound_follows_from_the_images_that_are_allowed() -> None:
    text = b'{"images":[' + b'{"url":"a","frames":1},' * 44_999 + b'{"url":"a"}]}'
    with pytest.raises(DocumentRefused):
        read_document(text)
    assert len(read_document(text, most_values(45_000))["images"]) == 45_000


@pytest.mark.parametrize("text", ["1e999", '{"a": [-1e400]}', "NaN", "[Infinity]", "{", "", '"\\ud800"', "9" * 5000])
def test_what_is_no_document_or_could_not_be_written_back_is_refused(text: str) -> None:
    with pytest.raises(DocumentRefused, match="expected"):
        read_document(text)


def test_nesting_ends_at_200_levels() -> None:
    assert read_document("[" * 200 + "]" * 200)
    with pytest.raises(DocumentRefused, match="more than 200 levels of nesting at line 1 column 202"):
        read_document("[" * 100_000)
