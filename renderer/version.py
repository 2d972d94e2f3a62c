"""The version, in the one place that it is written; asking what is installed reads the metadata of all packages."""

from typing import Final

VERSION: Final = "0.1.0"
