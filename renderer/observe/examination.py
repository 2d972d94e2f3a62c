"""The findings of `doctor` for the daemon's page, from a child process, which loads the libraries that it tries."""

import json
import logging
import subprocess
import sys
from typing import Any, Final

from renderer.config import Settings
from renderer.processes import answer

log = logging.getLogger(__name__)

_DOCTOR: Final = "renderer.cli.doctor"
_TIMEOUT_S: Final = 300.0
_EXAMINED: Final = {"pictures", "encode", "nvenc", "engine", "limits"}  # parts of the settings that hold no secrets


def examined(settings: Settings) -> list[dict[str, Any]]:
    """Return what works on this machine; an examination that fails is a finding too. Blocks for seconds."""
    document = settings.model_dump_json(include=_EXAMINED)
    try:
        done = answer([sys.executable, "-m", _DOCTOR], timeout_s=_TIMEOUT_S, stdin=document)
    except (subprocess.TimeoutExpired, OSError) as error:
        log.warning("the machine could not be examined: %s", error, extra={"action": "not_examined"})
        return [_unknown("the examination did not end")]
    if done.returncode:
        words = done.stderr.strip()
        log.warning(
            "the machine could not be examined; the last output was: %s", words, extra={"action": "not_examined"}
        )
        return [_unknown(f"the examination ended with exit code {done.returncode}")]
    return list(json.loads(done.stdout.splitlines()[-1]))


def _unknown(why: str) -> dict[str, Any]:
    return {"what": "doctor", "works": False, "found": why, "is_needed": False}
