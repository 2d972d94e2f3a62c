"""CURVE keys for tests, made by the command line where people would make them."""

import os
from pathlib import Path

from tests import warm


def keys(data_dir: Path, *arguments: str, cwd: Path) -> str:
    """Run `stillreel keys`, and return what it prints."""
    done = warm.run(["keys", *arguments, "--data-dir", str(data_dir)], environment=os.environ, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def curve_file(data_dir: Path, name: str) -> Path:
    """Make a key; its file lies beside the data directory."""
    from protocol.curve import CurveKeys
    from renderer.frontends.zmq.curve import CurveRing

    made: CurveKeys = CurveRing(data_dir).add(name)
    file = data_dir.parent / f"{name}.curve"
    file.write_text(made.to_text())
    return file
