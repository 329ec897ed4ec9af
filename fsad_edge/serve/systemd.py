"""Notify systemd (sd_notify(3)), so that it restarts a service that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable


def notify(state: str) -> None:
    """Send systemd a state such as ``READY=1``, if it started this process.

    A socket without a listener, as in a container that inherits its name, is ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(state.encode())


async def keep_alive(is_healthy: Callable[[], bool]) -> None:
    """Notify systemd's watchdog twice in each of its periods while the service is healthy.

    Args:
        is_healthy: tells whether it is. An event loop that hangs sends nothing either.
    """
    period = os.environ.get("WATCHDOG_USEC", "")
    if not period.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if is_healthy():
            notify("WATCHDOG=1")
        await asyncio.sleep(int(period) / 2e6)
