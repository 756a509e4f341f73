"""Fixtures of the command's tests."""

from tests.tastematch.importing import data, importing

__all__ = ["data", "importing"]
