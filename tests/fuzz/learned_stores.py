"""The folder of what a device learned: damaged, its writer killed, on a full disk, put back.

What was acknowledged is there afterwards, or the library says that it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsad_edge import Model
from fsad_edge.errors import FsadEdgeError
from fsad_edge.learning.learner import Learner
from tests.fuzz.children import in_child
from tests.fuzz.mutations import apply_edits, draw_edits
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.service import Service
from tests.fuzz.subject import Subject, behaviour_of, differences, encoded, is_sane, photograph

#: What is left of a learner's state: ids with what was learned, and what scores hang on.
State = dict[str, Any]

_SHARES = {
    "damage": 60,
    "exchange": 10,
    "replace": 10,
    "kill": 8,
    "full": 8,
    "put back": 8,
    "service": 3,
}

#: The acts of a stream of writes.
_ACTS = ("add", "reject", "threshold", "undo", "example")


class Attack:
    """Spoils a store that holds good and bad images, a threshold and an undo."""

    def __init__(self, subject: Subject) -> None:
        self._probes = subject.probes
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        self._whole = self._folder / "whole"
        self._whole.mkdir()
        shutil.copy(subject.file, self._whole / "part.onnx")
        made = in_child(self._teach)
        shutil.rmtree(self._whole / "state", ignore_errors=True)
        if made.fault is not None:
            raise RuntimeError(made.fault.detail)
        self._before: State = made.value
        self._files = sorted(
            str(path.relative_to(self._whole))
            for path in (self._whole / "part.learned").rglob("*")
            if path.is_file()
        )

    def _teach(self) -> State:
        own_notes(self._whole)
        file = self._whole / "part.onnx"
        with Model.load(file, "cpu", threads=1) as model:
            with Learner.open(file, model) as learner:
                for number, act in enumerate(
                    ("add", "reject", "add", "threshold", "undo", "add", "reject", "example")
                ):
                    do(learner, act, number)
            with Learner.open(file, model) as learner:
                return self._state(learner, model)

    def _state(self, learner: Learner, model: Model) -> State:
        arrays = learner.reference.as_inputs()
        return {
            **behaviour_of(model, self._probes),
            "threshold": learner.threshold.value,
            "there": there(learner),
            "arrays": {
                name: hashlib.sha256(one.tobytes()).hexdigest() for name, one in arrays.items()
            },
            "notice": None,
        }

    def make(self, rng: random.Random) -> Steps:
        [kind] = rng.choices([*_SHARES], [*_SHARES.values()])
        if kind in {"damage", "exchange", "replace"}:
            # Half of the cases are for the one file that says what was learned.
            small = [one for one in self._files if "images/" not in one]
            file = rng.choice(small if rng.random() < 0.6 else self._files)
            steps: Steps = {"kind": kind, "file": file}
            if kind == "damage":
                size = (self._whole / file).stat().st_size
                steps["edits"] = draw_edits(rng, size, [(max(size - 400, 0), size)])
            elif kind == "exchange":
                suffix = Path(file).suffix
                alike = [one for one in self._files if one.endswith(suffix) and one != file]
                steps["other"] = rng.choice(alike or self._files)
            else:
                steps["by"] = rng.choice(["nothing", "empty", "folder", "pipe", "loop", "zeros"])
            return steps
        acts = [rng.choice(_ACTS) for _ in range(rng.randrange(3, 8))]
        seeds = [rng.randrange(10**6) for _ in acts]
        steps = {"kind": kind, "acts": ["add", *acts], "seeds": [rng.randrange(10**6), *seeds]}
        if kind == "kill":
            steps |= {"after": rng.randrange(len(acts)), "wait": rng.uniform(0, 0.15)}
        elif kind == "full":
            steps |= {"after": rng.randrange(len(acts)), "room": rng.randrange(2000)}
        if kind in {"put back", "service"}:
            steps["way"] = rng.choice(["rename", "remove", "in place", "anew"])
            steps["copied"] = rng.randrange(len(acts))  # after so many acts and the first
            steps["back"] = rng.randrange(steps["copied"] + 1, len(acts) + 1)
        return steps

    def run(self, steps: Steps) -> Verdict:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            if steps["kind"] in {"damage", "exchange", "replace"}:
                shutil.copytree(self._whole, place, dirs_exist_ok=True)
                return self._run_damage(steps, place)
            shutil.copy(self._whole / "part.onnx", place)
            runs: dict[str, Callable[[Steps, Path], Verdict]] = {
                "kill": self._run_kill, "full": self._run_full, "put back": self._run_put_back,
                "service": self._run_service,
            }  # fmt: skip
            return runs[steps["kind"]](steps, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _run_damage(self, steps: Steps, place: Path) -> Verdict:
        file = place / steps["file"]
        if steps["kind"] == "exchange":
            exchange(file, place / steps["other"])
        elif steps["kind"] == "replace":
            replace(file, steps["by"])
        else:
            data = file.read_bytes()
            changed = apply_edits(data, steps["edits"])
            if steps["edits"][0][0] == "cut" and changed.endswith(b"\n"):
                # A copy from before the last acts looks exactly so, and nobody could tell.
                changed = changed[:-1]
            file.write_bytes(changed)
        found = in_child(lambda: self._open(place, write=True)).verdict(self._judge)
        if found.outcome is not Outcome.SAME:
            return found
        return in_child(lambda: self._open(place, write=False)).verdict(self._judge)

    def _open(self, place: Path, write: bool) -> State:
        own_notes(place)
        file = place / "part.onnx"
        with (
            Model.load(file, "cpu", threads=1) as model,
            Learner.open(file, model, write) as learner,
        ):
            found = self._state(learner, model)
            for entry in learner.active:
                learner.image(entry)
            return {**found, "notice": learner.notice}

    def _judge(self, found: State) -> Verdict:
        """A state of damaged files: what does not count any more must be told."""
        notice = found.pop("notice")
        before = {name: one for name, one in self._before.items() if name != "notice"}
        missing = self._before["there"].items() - found["there"].items()
        if missing and notice:
            return Verdict(Outcome.REFUSED, notice)
        if missing:
            return Verdict(Outcome.LOST, f"{sorted(missing)}; the notice: {notice}")
        differ = differences(before, found) or is_sane(found)
        return Verdict(Outcome.SILENT, differ) if differ else Verdict(Outcome.SAME, notice or "")

    def _run_kill(self, steps: Steps, place: Path) -> Verdict:
        said = place / "said"
        said.touch()

        def kill(child: int) -> None:
            end = time.monotonic() + 20
            while time.monotonic() < end and len(lines(said)) <= steps["after"]:
                time.sleep(0.001)
            time.sleep(steps["wait"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

        in_child(lambda: self._stream(steps, place, said), started=kill)
        return self._compare(place, said)

    def _run_full(self, steps: Steps, place: Path) -> Verdict:
        said = place / "said"
        said.touch()

        def fill(number: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            if number == steps["after"]:
                sizes = [one.stat().st_size for one in (place / "part.learned").glob("*")]
                limit = max(sizes, default=0) + steps["room"]
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        ended = in_child(lambda: self._stream(steps, place, said, fill))
        found = ended.verdict(lambda _: Verdict(Outcome.SAME))
        return found if found.outcome.is_fault else self._compare(place, said)

    def _run_put_back(self, steps: Steps, place: Path) -> Verdict:
        """An older copy of the folder takes its place while the learner goes on."""
        said = place / "said"
        said.touch()
        folder, copy = place / "part.learned", place / "copy"

        def before(number: int) -> None:
            if number == steps["copied"] + 1:
                shutil.copytree(folder, copy)
            if number == steps["back"]:
                put_back(steps, folder, copy, said)

        ended = in_child(lambda: self._stream(steps, place, said, before))
        found = ended.verdict(lambda _: Verdict(Outcome.SAME))
        return found if found.outcome.is_fault else self._compare(place, said)

    def _run_service(self, steps: Steps, place: Path) -> Verdict:
        """The same below a service that runs, which is asked by HTTP and killed at the end."""
        said = place / "said"
        said.touch()
        service = Service(place, place / "part.onnx")
        folder, copy = place / "part.learned", place / "copy"
        try:
            for number, seed in enumerate(steps["seeds"]):
                if number == steps["copied"] + 1:
                    shutil.copytree(folder, copy)
                if number == steps["back"]:
                    put_back(steps, folder, copy, said)
                status, body = service.ask(
                    "POST", "/v1/models/part/normals?who=anna&force=true", taught(seed)
                )
                word = "refused"
                if status == 201:
                    entry = json.loads(body)
                    word = f"kept {entry['id']} {entry.get('sha256', '')}"
                elif status == 0 or (status >= 500 and status != 503):
                    return Verdict(Outcome.SERVER_ERROR, f"{status}: {body[:300]!r}")
                with said.open("a") as notes:
                    notes.write(f"trying {number} add\ndone {number} {word}\n")
            log = service.new_log()
            if "Traceback" in log:
                return Verdict(Outcome.TRACEBACK, log[-800:])
            service.process.kill()
        finally:
            service.close()
        return self._compare(place, said)

    def _stream(
        self, steps: Steps, place: Path, said: Path, before: Callable[[int], None] | None = None
    ) -> None:
        """Acts one after the other; each is noted as soon as the learner has acknowledged it."""
        own_notes(place)
        file = place / "part.onnx"
        with (
            Model.load(file, "cpu", threads=1) as model,
            Learner.open(file, model) as learner,
            said.open("a", buffering=1) as notes,
        ):
            for number, (act, seed) in enumerate(zip(steps["acts"], steps["seeds"], strict=True)):
                if before is not None:
                    before(number)
                notes.write(f"trying {number} {act}\n")
                word = "refused"
                with contextlib.suppress(FsadEdgeError):
                    word = do(learner, act, seed)
                with _no_limit():
                    notes.write(f"done {number} {word}\n")

    def _compare(self, place: Path, said: Path) -> Verdict:
        """Whether all that was acknowledged is there when the folder is opened again."""
        words = [line.split() for line in lines(said)]
        ended = in_child(lambda: self._open(place, write=True))

        def judge(found: State) -> Verdict:
            expected, unsure = acknowledged(words)
            wrong = {key for key in expected if found["there"].get(key) != expected[key]} - unsure
            if wrong:
                text = f"acknowledged and not there: {sorted(wrong)}; {words}; {found['there']}"
                return Verdict(Outcome.LOST, text)
            nonsense = is_sane(found)
            return Verdict(Outcome.SILENT, nonsense) if nonsense else Verdict(Outcome.SAME)

        found = ended.verdict(judge)
        if found.outcome is Outcome.REFUSED:  # nothing was damaged but by the product itself
            return Verdict(Outcome.LOST, found.detail)
        return found

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _no_limit() -> Any:
    """Let the block write although the disk is taken to be full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def own_notes(place: Path) -> None:
    """Keep the user's notes of where a model has learned apart from those of other cases."""
    os.environ["XDG_STATE_HOME"] = str(place / "state")


def lines(file: Path) -> list[str]:
    """The whole lines of a file."""
    text = file.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def do(learner: Learner, act: str, seed: int) -> str:
    """One act; returns what is acknowledged, as ``kept ID SHA256`` or ``undone ID``."""
    if act == "add":
        entry = learner.add(taught(seed), "anna", force=True)
        return f"kept {entry.id} {entry.sha256}"
    if act == "reject":
        image = photograph(2000 + seed, defect=1.0)
        entry = learner.reject(encoded(image), "otto", force=True)
        return f"kept {entry.id} {entry.sha256}"
    if act == "example":
        entry = learner.keep_example(encoded(photograph(3000 + seed)), "otto", good=True)
        return f"kept {entry.id} {entry.sha256}"
    if act == "threshold":
        setting = learner.set_threshold("otto", ratio=1.0 + seed % 10 / 100, force=True)
        return f"kept {setting.id} {setting.value!r}"
    undone = learner.undo(who="otto")
    return f"undone {undone.id}"


def taught(seed: int) -> bytes:
    """A good part that looks different from the shots: it has a groove."""
    image = photograph(1000 + seed)
    image.paste((96, 99, 106), (8, 78, 60 + seed % 28, 86))
    return encoded(image)


def there(learner: Learner) -> dict[str, str]:
    """What is learned and not undone, by id."""
    found = {str(entry.id): entry.sha256 for entry in learner.active}
    settings = [one for one in learner.settings() if one.undone is None]
    return found | {str(one.id): repr(one.value) for one in settings}


def acknowledged(words: list[list[str]]) -> tuple[dict[str, str | None], set[str]]:
    """What was acknowledged by id, None for what was undone; and ids of which it is not known.

    An undo that was asked for and not answered can have taken any of them away.
    """
    history: list[dict[str, str | None]] = []
    now: dict[str, str | None] = {}
    waiting = None
    for word in words:
        if word[0] == "back":
            count = int(word[1])
            now = dict(history[count - 1]) if count and history else {}
        elif word[0] == "trying":
            waiting = word[2]
        else:
            waiting = None
            if word[2] == "kept":
                now[word[3]] = word[4]
            elif word[2] == "undone":
                now[word[3]] = None
            history.append(dict(now))
    return now, set(now) if waiting == "undo" else set()


def put_back(steps: Steps, folder: Path, copy: Path, said: Path) -> None:
    """Let a copy take the place of a folder that is in use."""
    if steps["way"] == "rename":
        folder.rename(folder.with_name("away"))
        copy.rename(folder)
    elif steps["way"] == "in place":
        shutil.copytree(copy, folder, dirs_exist_ok=True)
    else:
        shutil.rmtree(folder)
        if steps["way"] == "remove":
            copy.rename(folder)
    # What the copy does not hold is gone by the hand of who put it there.
    kept = 0 if steps["way"] == "anew" else steps["copied"] + 1
    with said.open("a") as file:
        file.write(f"back {kept}\n")


def exchange(one: Path, other: Path) -> None:
    """Give two files each other's content."""
    if one != other:
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)


def replace(file: Path, by: str) -> None:
    """Put something else in the place of a file."""
    size = file.stat().st_size
    file.unlink()
    if by in {"empty", "zeros"}:
        file.write_bytes(bytes(size if by == "zeros" else 0))
    elif by == "folder":
        file.mkdir()
    elif by == "pipe":
        os.mkfifo(file)
    elif by == "loop":
        file.symlink_to(file.name)
