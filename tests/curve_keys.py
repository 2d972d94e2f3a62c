"""CURVE keys for tests, made by the command line where people would make them."""

import subprocess
import sys
from pathlib import Path


def keys(data_dir: Path, *arguments: str, cwd: Path) -> str:
    """Run `stillreel keys`, and return what it prints."""
    command = [sys.executable, "-m", "renderer", "keys", *arguments, "--data-dir", str(data_dir)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def curve_file(data_dir: Path, name: str) -> Path:
    """Make a key; its file lies beside the data directory."""
    from protocol.curve import CurveKeys
    from renderer.frontends.curve import CurveRing

    made: CurveKeys = CurveRing(data_dir).add(name)
    file = data_dir.parent / f"{name}.curve"
    file.write_text(made.to_text())
    return file
