"""Phrases of other libraries, which a user of this project should never have to read."""

import re

FOREIGN = re.compile(
    r"Input should|Value error|valid dictionary|instance of|Extra inputs|string_|\[type=|pydantic"  # pydantic
    r"|EOF while|Expecting (value|property)|Extra data|trailing char"  # parsers of JSON
    r"|\[Errno|does not appear to be|Invalid IPv6|nonnumeric|not enough values|Invalid argument"  # Python and ZeroMQ
    r"|\(_ssl\.c|\[SSL|PEM lib|Traceback|object at 0x"
)
