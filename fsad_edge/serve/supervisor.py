"""What systemd is told (sd_notify(3)), so that it starts a service anew that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable


def notify(state: str) -> None:
    """Tell systemd ``READY=1`` and the like; nothing where it did not start this process.

    Where nobody is at the socket, as in a container that inherits its name, nobody is told.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name of Linux's own, in no folder
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(state.encode())


async def keep_alive(well: Callable[[], bool]) -> None:
    """Tell systemd's watchdog that all is well, as often as it wants to hear, until it is not.

    Args:
        well: whether it is. Where this loop itself hangs, nothing is told either.
    """
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if not wanted.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if well():
            notify("WATCHDOG=1")
        await asyncio.sleep(int(wanted) / 2e6)
