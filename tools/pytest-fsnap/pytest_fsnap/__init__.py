"""Tests that start from a snapshot of a running process, by libfsnap."""

from .library import FsnapError, Library

__all__ = ["FsnapError", "Library"]
