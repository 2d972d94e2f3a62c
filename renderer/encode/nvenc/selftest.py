"""The self-test of held pictures on a GPU, as a program: `findings.nvenc_refusal` runs it in a child process.

`python -m renderer.encode.nvenc.selftest` reads the settings as JSON from stdin, and writes the verdict as JSON.
"""

import json
import sys

from renderer.config import EncodeSettings, NvencSettings
from renderer.encode.nvenc.encoder import NvencEncoder
from renderer.encode.nvenc.probe import find
from renderer.encode.nvenc.session import Opening
from renderer.encode.selftest import refusal


def _main() -> None:
    settings = NvencSettings.model_validate_json(sys.stdin.read())
    opening = Opening(settings, find(settings).candidates)
    verdict = refusal(lambda stream, _: NvencEncoder(stream, opening), EncodeSettings())
    sys.stdout.write("\n" + json.dumps(verdict) + "\n")


if __name__ == "__main__":
    _main()
