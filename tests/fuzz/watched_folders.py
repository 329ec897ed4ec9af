"""A watched folder of what no camera writes: each file has one result, and the others go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import apply_edits, draw_edits
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.service import Service
from tests.fuzz.subject import Subject, encoded, photograph

#: Seconds in which an honest image has its result, whatever lies beside it.
HONEST_SECONDS = 20.0

#: Seconds in which each bad file has its error: one that cannot be read is tried for half a minute.
BAD_SECONDS = 60.0

#: Files that are no regular ones; they may be passed over, or be an error.
_ODD = ("loop", "dangling", "pipe", "folder", "socket", "link to device", "link out", "hidden")

#: Files that must have one result each.
_FILES = (
    *("mutated", "mutated", "mutated", "empty", "huge", "long name", "line feed", "escape"),
    *("no unicode", "unreadable", "text", "good", "quote", "spaces", "same name", "bad long name"),
)


class Attack:
    """Fills a folder that a service watches, and looks for the results."""

    def __init__(self, subject: Subject) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        shutil.copy(subject.file, self._folder)
        self._image = encoded(photograph(51))
        self._bad = encoded(photograph(53, defect=1.0))

    def make(self, rng: random.Random) -> Steps:
        kind = rng.choices(("entries", "full disk", "restart"), (6, 2, 2))[0]
        if kind == "full disk":
            return {"kind": kind, "room": rng.randrange(400)}
        if kind == "restart":
            ends = [(0, 300)]
            edits = [draw_edits(rng, 1000, ends) for _ in range(rng.choice((1, 2)))]
            return {"kind": kind, "which": [rng.randrange(100) for _ in edits], "edits": edits}
        entries = []
        for number in range(rng.randrange(4, 12)):
            what = rng.choice((*_ODD, *_FILES, *_FILES))
            entry: dict[str, Any] = {"what": what, "name": f"{number}"}
            if what == "mutated":
                entry["edits"] = draw_edits(rng, len(self._image), [(0, 200)])
            entries.append(entry)
        return {"kind": "entries", "files": entries}

    def run(self, steps: Steps) -> Verdict:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        inbox = place / "in"
        inbox.mkdir()
        model = shutil.copy(self._folder / "part.onnx", place)
        service = Service(place, model, "--watch", inbox)
        try:
            if steps["kind"] == "full disk":
                found = self._fill_disk(service, inbox, steps["room"])
            elif steps["kind"] == "restart":
                found = self._restart(service, inbox, steps)
            else:
                found = self._fill_folder(service, inbox, steps["files"])
            if steps["kind"] == "restart":
                return found
            after = service.check(self._image)
            # That it ended for its memory is why an image has no result.
            is_cause = after.outcome is not Outcome.HUNG or not found.outcome.is_fault
            return after if after.outcome.is_fault and is_cause else found
        finally:
            service.close()
            for path in inbox.rglob("*"):
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
            shutil.rmtree(place, ignore_errors=True)

    def _fill_folder(self, service: Service, inbox: Path, entries: list[Any]) -> Verdict:
        names = {self._put(inbox, one): one["what"] for one in entries}
        self._arrive(inbox, "honest.png", self._image)
        if not _wait(lambda: rows(inbox)["honest.png"] == 1, HONEST_SECONDS):
            return Verdict(Outcome.HUNG, f"an honest image has no result beside {names}")
        needed = [name for name, what in names.items() if what not in _ODD]
        _wait(lambda: all(rows(inbox)[shown(name)] for name in needed), BAD_SECONDS)
        time.sleep(1)
        found = rows(inbox)
        for name, what in names.items():
            count = found[shown(name)]
            if count > 1 or (count == 0 and what not in _ODD):
                return Verdict(Outcome.LOST, f"{what}: {count} results for {name!r}; {found}")
        self._arrive(inbox, "last.png", self._bad)
        if not _wait(lambda: rows(inbox)["last.png"] == 1, HONEST_SECONDS):
            return Verdict(Outcome.HUNG, f"a later image has no result beside {names}")
        return Verdict(Outcome.SAME, str(names))

    def _fill_disk(self, service: Service, inbox: Path, room: int) -> Verdict:
        """No file can grow any more for a while; afterwards each image has one result."""
        self._arrive(inbox, "first.png", self._image)
        if not _wait(lambda: rows(inbox)["first.png"] == 1, HONEST_SECONDS):
            return Verdict(Outcome.HUNG, "the first image has no result")
        size = max(path.stat().st_size for path in results(inbox))
        most = resource.RLIM_INFINITY
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size + room, most))
        for name in ("second.png", "third.png"):
            self._arrive(inbox, name, self._bad)
        time.sleep(8)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (most, most))
        self._arrive(inbox, "fourth.png", self._image)
        names = ["second.png", "third.png", "fourth.png"]
        _wait(lambda: all(rows(inbox)[name] for name in names), HONEST_SECONDS + 10)
        time.sleep(3)
        found = rows(inbox)
        if any(found[name] != 1 for name in names):
            return Verdict(Outcome.LOST, f"after a full disk: {found}")
        return Verdict(Outcome.SAME, str(found))

    def _restart(self, service: Service, inbox: Path, steps: Steps) -> Verdict:
        """What the service keeps is damaged while it is stopped: it starts, and goes on."""
        for number in range(3):
            self._arrive(inbox, f"{number}.png", self._bad)
        if not _wait(lambda: sum(rows(inbox).values()) == 3, HONEST_SECONDS):
            return Verdict(Outcome.HUNG, "the first images have no results")
        service.close()
        kept = sorted(one for one in (inbox / "fsad-edge").rglob("*") if one.is_file())
        for which, edits in zip(steps["which"], steps["edits"], strict=True):
            file = kept[which % len(kept)]
            file.write_bytes(apply_edits(file.read_bytes(), edits))
        try:
            again = Service(inbox.parent, inbox.parent / "part.onnx", "--watch", inbox)
        except RuntimeError as error:
            text = str(error)
            refused = "error: " in text and "Traceback" not in text
            return Verdict(Outcome.REFUSED if refused else Outcome.TRACEBACK, text[-800:])
        try:
            self._arrive(inbox, "honest.png", self._image)
            if not _wait(lambda: rows(inbox)["honest.png"] == 1, HONEST_SECONDS):
                return Verdict(Outcome.HUNG, f"no result after a restart: {again.log[-600:]}")
            status, body = again.ask("GET", "/v1/recent?limit=100")
            if status != 200:
                return Verdict(Outcome.SERVER_ERROR, f"recent: {status} {body[:300]!r}")
            return again.check(self._image)
        finally:
            again.close()

    @staticmethod
    def _arrive(inbox: Path, name: str, data: bytes) -> None:
        """Let a whole file appear at once, as a camera's program should."""
        temporary = inbox.parent / "arriving"
        temporary.write_bytes(data)
        temporary.rename(inbox / name)

    def _put(self, inbox: Path, entry: dict[str, Any]) -> str:
        """Put an entry into the folder; returns its name."""
        what, number = str(entry["what"]), str(entry["name"])
        names = {
            "long name": number + "n" * 240 + ".png",
            "bad long name": number + "ä" * 120 + ".png",
            "line feed": f"{number}\n2026-01-01 INFO forged.png",
            "escape": f"{number}\x1b[31mred\x07.png",
            "no unicode": os.fsdecode(number.encode() + b"\xff\xfe.png"),
            "quote": f"{number}\"'<b>&;.png",
            "spaces": f" {number} .png",
            "hidden": f".{number}.png",
            "same name": f"{number}.PNG",
        }
        name = names.get(what, f"{number}.png")
        path = inbox / name
        data = self._bad if what == "bad long name" else self._image
        if what == "mutated":
            data = apply_edits(self._image, entry["edits"])
        elif what in {"empty", "text"}:
            data = b"" if what == "empty" else b"no image\n" * 100
        if what in _ODD and what != "hidden":
            _odd(path, what, inbox)
            return name
        with path.open("wb") as file:
            file.write(data)
            if what == "huge":
                file.truncate(3 << 30)  # a hole: it takes no room on disk
        if what == "unreadable":
            path.chmod(0)
        return name

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _odd(path: Path, what: str, inbox: Path) -> None:
    """Make what is no regular file."""
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
            one.bind(str(path))  # its name may be too long; then there is nothing
    else:
        outside = inbox.parent / "outside.png"
        outside.write_bytes(b"not in the folder")
        targets = {"loop": path.name, "dangling": "nothing", "link to device": "/dev/zero"}
        path.symlink_to(targets.get(what, str(outside)))


def results(inbox: Path) -> list[Path]:
    """The files of results."""
    return sorted((inbox / "fsad-edge").glob("results*.jsonl"))


def rows(inbox: Path) -> Counter[str]:
    """How many lines of the results are about each name."""
    found: Counter[str] = Counter()
    for path in results(inbox):
        for line in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                found[shown(json.loads(line)["name"])] += 1
    return found


def shown(name: str) -> str:
    """A name without what a line of results may write in another way."""
    return "".join(one for one in name if one.isascii() and one.isprintable() and one not in "?\\")


def _wait(done: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return bool(done())
