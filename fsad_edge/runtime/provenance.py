"""When a file was made, and with which versions."""

from __future__ import annotations

import datetime
import sys


def utc_now(timespec: str = "seconds") -> str:
    """The current time in UTC, ISO 8601.

    Args:
        timespec: its precision, as ``datetime.isoformat`` takes it.

    Example:
        >>> utc_now()[-6:]
        '+00:00'
    """
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec=timespec)


def package_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    from importlib import metadata  # slow to import, and most starts do not need it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, this package, numpy, Pillow and more ``packages``, where installed."""
    found = {"python": sys.version.split()[0]}
    for package in ("fsad-edge", "numpy", "pillow", *packages):
        version = package_version(package)
        if version is not None:
            found[package] = version
    return found
