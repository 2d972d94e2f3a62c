"""Draw docs/architecture.md's picture of who imports whom from the code: `python scripts/architecture.py` prints it.

A box is a folder of `renderer/`, a module at its top, or `protocol/`. An arrow is an import, left out where a longer
way says the same, so that the picture shows the order in which the house may be read: from the bottom up.
"""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SMALL_ROOMS = {"__init__", "__main__", "errors", "config"}  # imported by nearly everybody, or by nobody


def imports() -> dict[str, set[str]]:
    """Return, for every box, the boxes that its code imports, at whatever depth of a function."""
    found: dict[str, set[str]] = {}
    for path in sorted((*ROOT.glob("renderer/**/*.py"), *ROOT.glob("protocol/**/*.py"))):
        box = _box(path.relative_to(ROOT).with_suffix("").parts)
        for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            other = _box(tuple(name.split(".")))
            if {box, other}.isdisjoint(_SMALL_ROOMS) and box != other:
                found.setdefault(box, set()).add(other)
                found.setdefault(other, set())
    return found


def drawn(graph: dict[str, set[str]]) -> str:
    """Return the graph as a Mermaid flowchart, top down."""
    arrows = [f"    {box} --> {other}" for box in sorted(graph) for other in sorted(_nearest(graph, box))]
    return "\n".join(["flowchart TD", *arrows])


def _nearest(graph: dict[str, set[str]], box: str) -> set[str]:
    """Return what a box imports and reaches by no longer way."""
    farther = set(itertools.chain.from_iterable(_reached(graph, other) for other in graph[box]))
    return graph[box] - farther


def _reached(graph: dict[str, set[str]], box: str) -> set[str]:
    found: set[str] = set()
    todo = list(graph[box])
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo.extend(graph[other])
    return found


def _box(parts: tuple[str, ...]) -> str:
    if parts[0] == "protocol":
        return "protocol"
    is_there = len(parts) > 1 and any((ROOT / "renderer").glob(f"{parts[1]}*"))
    return parts[1] if is_there else "__init__"  # `from renderer import render` is the library's own face


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("renderer", "protocol"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in ("renderer", "protocol"))


if __name__ == "__main__":
    print(drawn(imports()))
