"""docs/architecture.md says what is so: its drawing is the code's, and every name and file in it is there."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from scripts.architecture import drawn, imports

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`((?:renderer|protocol)[\w.]*:[\w.]+)`", DOCUMENT)))
FILES = sorted(set(re.findall(r"`((?:renderer|tests|docs)/[\w/.]+)`", DOCUMENT)))
WALKS = re.findall(r"^## (A ZeroMQ .*|An HTTP .*)\n\n((?:\d+\. .*\n)+)", DOCUMENT, re.MULTILINE)


def test_the_drawing_is_the_codes() -> None:
    assert f"```mermaid\n{drawn(imports())}\n```" in DOCUMENT


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_is_there(name: str) -> None:
    module, _, path = name.partition(":")
    assert reduce(getattr, path.split("."), importlib.import_module(module))


@pytest.mark.parametrize("path", FILES)
def test_a_file_or_folder_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("title", "steps"), WALKS)
def test_a_walk_has_at_most_twelve_steps(title: str, steps: str) -> None:
    assert 5 <= steps.count("\n") <= 12, title


def test_both_walks_are_found() -> None:
    assert len(WALKS) == 2


def test_the_top_of_the_house_stays_small() -> None:
    top = [path for path in (ROOT / "renderer").iterdir() if path.name != "__pycache__"]
    assert len([path for path in top if path.suffix == ".py"]) <= 13
    assert len([path for path in top if any(path.glob("*.py"))]) <= 10
