"""The parser of TOML: that of the standard library, or before Python 3.11 the package it came from."""

import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["tomllib"]
