"""The container file without a container engine: its steps, over a copy of this machine's root that is gone afterwards.

The image itself was never built here. An overlay over the root takes what the steps write; an empty environment stands
for the image's Python. Its packages are this environment's, so that nothing is downloaded. With `image` in REQUIRE they
are installed anew, as in the image; that takes the image's version of Python and the network.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILE, PINS = ROOT / "scripts" / "Containerfile", ROOT / "scripts" / "constraints.txt"
ALL_ANEW = "image" in os.environ.get("REQUIRE", "").split(",")
Require = Callable[[str, object, str], None]


@dataclass
class Image:
    """What a container file says, in its order."""

    base: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    command: dict[str, list[str]] = field(default_factory=dict)
    health: str = ""


def read(file: Path) -> Image:
    """Read the instructions that matter here, and fail for one that is not known."""
    image = Image()
    lines = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
    for line in filter(None, lines.replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        if word in {"RUN", "COPY"}:
            image.steps.append((word, rest))
        elif word == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word in {"ENTRYPOINT", "CMD"}:
            image.command[word] = json.loads(rest)
        elif word == "HEALTHCHECK":
            image.health = rest.partition(" CMD ")[2]
        elif word == "USER":
            image.user = rest
        elif word == "FROM":
            image.base = rest
        else:
            assert word in {"VOLUME", "EXPOSE", "STOPSIGNAL"}, f"what does {word} do?"
    return image


def test_the_base_and_every_package_have_a_version() -> None:
    assert re.search(r"/python:\d+\.\d+\.\d+-slim-\w+$", read(FILE).base)
    pinned = [line for line in PINS.read_text().splitlines() if not line.startswith("#")]
    versions = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in pinned)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        version = versions[canonicalize_name(wanted.name)]
        assert version in wanted.specifier, f"{wanted}, but {version} is pinned: make constraints"
    assert len(versions) > len(project["dependencies"])  # what they need is pinned as well


def test_no_key_is_in_the_image() -> None:
    settings = read(FILE).environment
    assert settings["STILLREEL_HTTP__KEY_FILE"].startswith("/run/secrets/")
    assert not [step for step in read(FILE).steps if "keys" in step[1] or "secret" in step[1]]


# The steps.

# Namespaces of mounts, processes and networks, so that neither a file, a process nor a port is left or in the way.
ALONE = () if ALL_ANEW else ("--net",)
APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", *ALONE, "sh", "-euc")
ENTER = """
    mount -t tmpfs none "$0" && mkdir "$0/upper" "$0/work" "$0/root"
    mount -t overlay none -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
    mount --rbind /dev "$0/root/dev" && mount -t proc none "$0/root/proc"
    mount -t tmpfs none "$0/root/run" && mount -t tmpfs none "$0/root/var/lib"
    ip link set lo up
    exec chroot "$0/root" sh -euc "$1"
"""
# May read everything, because this Python may lie where only root can.
AS_USER = (
    "setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)

PIP_OF_HERE = f"""
    {sys.executable} -m venv --without-pip /image
    echo {Path(pytest.__file__).parents[1]} > $(echo /image/lib/python3*/site-packages)/packages.pth
    cat > /image/bin/pip <<'END'
#!/bin/sh
command=$1; shift
exec /image/bin/python -m pip "$command" --no-deps --no-build-isolation "$@"
END
    chmod +x /image/bin/pip
"""


def script(image: Image) -> str:
    """Return what runs the steps, then the container, and looks at it."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in image.environment.items()]
    lines += ["mkdir /src", "export PATH=/image/bin:$PATH"]
    python = re.findall(r"python:(\d+\.\d+)", image.base)[0]
    lines += [f"python{python} -m venv /image" if ALL_ANEW else PIP_OF_HERE]
    for word, step in image.steps:
        *sources, target = step.split()
        copied = [f"cp -r {shlex.quote(str(ROOT / source))} {target}" for source in sources]
        lines += copied if word == "COPY" else [f"sh -c {shlex.quote(step)}"]
    container = shlex.join([*image.command["ENTRYPOINT"], *image.command["CMD"]])
    user = AS_USER.format(user=image.user)
    key = image.environment["STILLREEL_HTTP__KEY_FILE"]
    asked = "http://127.0.0.1:8480/metrics"
    return "\n".join(
        [
            *lines,
            "test ! -e /src",
            "cd / && export TMPDIR=/tmp HOME=/home/stillreel",
            f"{user} {container} 2>/tmp/refusal && exit 91 || test $? -eq 2",
            "grep -q 'error: http.key_file: /run/secrets/stillreel-key: No such file or directory' /tmp/refusal",
            f"mkdir -p {Path(key).parent} && head -c 32 /dev/urandom | base64 > {key} && chown {image.user} {key}",
            f"{user} {container} > /tmp/ready 2>/tmp/log & daemon=$!",
            "for try in $(seq 200); do test -s /tmp/ready && break; kill -0 $daemon; sleep 0.3; done",
            f"{user} sh -c {shlex.quote(image.health)}",
            f"test $(curl -s -o /dev/null -w '%{{http_code}}' {asked}) = 401",
            f'curl -sf -o /dev/null -H "Authorization: Key $(cat {key})" {asked}',
            "python -c 'import renderer; print(renderer.__file__)'",
            "kill $daemon && wait $daemon",
            f"{user} sh -c {shlex.quote(image.health)} && exit 92 || test $? -eq 1",
        ]
    )


@pytest.mark.timeout(900)
def test_its_steps_make_a_daemon_that_asks_for_the_key_and_tells_its_health(tmp_path: Path, require: Require) -> None:
    tried = subprocess.run([*APART, ENTER, str(tmp_path), "true"], capture_output=True, text=True, check=False)
    require("unshare", tried.returncode == 0, f"name spaces and an overlay take root: {tried.stderr}")
    require("curl", shutil.which("curl"), "Debian: curl")
    done = subprocess.run(
        [*APART, ENTER, str(tmp_path), script(read(FILE))],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert re.search(r"^ready: 0 of \d+ workers render, 0 jobs wait, encoder libx264$", done.stdout, re.MULTILINE)
    assert re.search(r"^/image/lib/\S+/site-packages/renderer/__init__.py$", done.stdout, re.MULTILINE)
