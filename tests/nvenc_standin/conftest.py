"""The stand-in as a fixture, for the tests beside it."""

from tests.nvenc_standin.fixture import standin, standin_libraries, standin_parent

__all__ = ["standin", "standin_libraries", "standin_parent"]
