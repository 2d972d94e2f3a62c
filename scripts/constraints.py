"""Write constraints.txt beside this file: the version of every package that the image installs, so that it can be built
again as it was.

Run it with the image's Python, for what is needed depends on that: `make constraints PYTHON=python3.13`. It asks PyPI,
downloads what has no metadata there, and installs nothing.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Ask pip what it would install, and write that down."""
    wanted = re.findall(r"^FROM \S+/python:(\d+\.\d+)", (HERE / "Containerfile").read_text(), re.MULTILINE)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted != [here]:
        sys.exit(f"expected the image's Python, {wanted[0]}, found {here}: make constraints PYTHON=python{wanted[0]}")
    asked = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", str(HERE.parent)]
    done = subprocess.run([sys.executable, "-m", "pip", *asked], stdout=subprocess.PIPE, text=True, check=True)
    found = [each["metadata"] for each in json.loads(done.stdout)["install"]]
    lines = sorted(f"{each['name'].lower()}=={each['version']}" for each in found if each["name"] != "stillreel")
    head = f"# What the image installs, for Python {here}; made by `make constraints PYTHON=python{here}`.\n"
    (HERE / "constraints.txt").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
