"""`python -m tests.nvenc_standin.child MODULE FUNCTION JSON` calls the function and prints its result as JSON."""

import importlib
import json
import logging
import sys

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    module, function, told = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(told))))  # noqa: T201 - how the answer gets back
