"""The names of NVENC's error codes, and how to find a code in the messages of PyNvVideoCodec.

The names are those of NVENCSTATUS in nvEncodeAPI.h (Video Codec SDK 13.0). The wheel has two exception classes that
have nothing in common but the text "Error code : N".
"""

import re
from typing import Final

_NAMES: Final = (
    "NV_ENC_SUCCESS",
    "NV_ENC_ERR_NO_ENCODE_DEVICE",
    "NV_ENC_ERR_UNSUPPORTED_DEVICE",
    "NV_ENC_ERR_INVALID_ENCODERDEVICE",
    "NV_ENC_ERR_INVALID_DEVICE",
    "NV_ENC_ERR_DEVICE_NOT_EXIST",
    "NV_ENC_ERR_INVALID_PTR",
    "NV_ENC_ERR_INVALID_EVENT",
    "NV_ENC_ERR_INVALID_PARAM",
    "NV_ENC_ERR_INVALID_CALL",
    "NV_ENC_ERR_OUT_OF_MEMORY",
    "NV_ENC_ERR_ENCODER_NOT_INITIALIZED",
    "NV_ENC_ERR_UNSUPPORTED_PARAM",
    "NV_ENC_ERR_LOCK_BUSY",
    "NV_ENC_ERR_NOT_ENOUGH_BUFFER",
    "NV_ENC_ERR_INVALID_VERSION",
    "NV_ENC_ERR_MAP_FAILED",
    "NV_ENC_ERR_NEED_MORE_INPUT",
    "NV_ENC_ERR_ENCODER_BUSY",
    "NV_ENC_ERR_EVENT_NOT_REGISTERD",
    "NV_ENC_ERR_GENERIC",
    "NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY",
    "NV_ENC_ERR_UNIMPLEMENTED",
    "NV_ENC_ERR_RESOURCE_REGISTER_FAILED",
    "NV_ENC_ERR_RESOURCE_NOT_REGISTERED",
    "NV_ENC_ERR_RESOURCE_NOT_MAPPED",
    "NV_ENC_ERR_NEED_MORE_OUTPUT",
)

# The codes when a session is opened on a card without an engine, or if the driver refuses access to the engine.
NO_ENGINE: Final = frozenset({1, 2})
# The chips GA100 and GH100 have decoders only, so the answer for their cards, and for no others, is final.
_CARDS_WITHOUT_ENGINE: Final = re.compile(r"\b(?:A30|A100X?|A800|H20|H100|H200|H800|GH200)\b")
# The codes for one session too many: 21 from newer drivers, 10 from older ones.
ALL_SESSIONS_TAKEN: Final = frozenset({10, 21})


def error_code(error: Exception) -> int | None:
    """Return the NVENC code in the wheel's exception, or None if it has none."""
    told = re.search(r"Error code : (\d+)", str(error))
    return int(told[1]) if told else None


def has_engine(card: str) -> bool:
    """Say whether a card of this name may have an NVENC engine."""
    return _CARDS_WITHOUT_ENGINE.search(card) is None


def code_name(code: int | None) -> str:
    """Return the name of an error code for messages, such as "NV_ENC_ERR_GENERIC (20)"."""
    if code is None:
        return "no error code"
    return f"{_NAMES[code]} ({code})" if code < len(_NAMES) else f"error {code}"
