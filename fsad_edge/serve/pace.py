"""How fast one client may ask for what costs next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

#: So many requests of one client besides POST are answered at once, and then so many a second: its
#: next ones wait. Answers that cost next to nothing, asked for without a pause, keep a core busy.
FREE_REQUESTS, REQUESTS_A_SECOND = 200, 100.0

#: Clients whose requests are counted.
_MOST_COUNTED = 4096


@dataclass
class Pace:
    """How many requests of each client were answered lately.

    Attributes:
        counts: the number for each client, less what its time since then allows, and that time.
    """

    counts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def wait(self, client: str, now: float) -> float:
        """Count a request; the seconds for which the next one on its connection must wait."""
        if len(self.counts) >= _MOST_COUNTED:
            self.counts = {one: found for one, found in self.counts.items() if found[1] > now - 10}
        count, since = self.counts.get(client, (0.0, now))
        count = max(0.0, count - (now - since) * REQUESTS_A_SECOND) + 1
        self.counts[client] = count, now
        return max(0.0, count - FREE_REQUESTS) / REQUESTS_A_SECOND
