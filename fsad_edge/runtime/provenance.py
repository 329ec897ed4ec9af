"""When a file was made, and with which versions."""

from __future__ import annotations

import datetime
import sys


def utc_now() -> str:
    """The time, UTC, ISO 8601, to the second.

    Example:
        >>> utc_now()[-6:]
        '+00:00'
    """
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def package_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    from importlib import metadata  # slow, and a start needs it not

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, this package, numpy, Pillow and those of ``packages`` that are installed."""
    found = {"python": sys.version.split()[0]}
    for package in ("fsad-edge", "numpy", "pillow", *packages):
        version = package_version(package)
        if version is not None:
            found[package] = version
    return found
