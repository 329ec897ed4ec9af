"""What people teach a model on a device: good and bad images and thresholds, applied to it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType

from fsad_edge.errors import InputError, ModelFileError, NotNormalError
from fsad_edge.learning.embedding import (
    Box,
    box_fractions,
    novelty_of,
    photograph_size,
    prepare,
    rejected_of,
    score_images,
    telling_of,
)
from fsad_edge.learning.examples import (
    ExampleState,
    SideChange,
    refuse_losses,
    side_changes,
    title,
)
from fsad_edge.learning.journal import Entry, Role, Setting
from fsad_edge.learning.novelty import Novelty
from fsad_edge.learning.places import store_path as store_path
from fsad_edge.learning.refusals import (
    DEFECT_RATIO,
    check_judged,
    check_new,
    check_normal,
    check_not_rejected,
    check_other_side,
    check_score_kind,
    check_unknown,
    find_entry,
)
from fsad_edge.learning.rejected import marked_place
from fsad_edge.learning.rejection import Rejection
from fsad_edge.learning.shown_places import compares_places, shown_places
from fsad_edge.learning.taught import ShownPlaces, Taught
from fsad_edge.learning.taught_model import TaughtModel
from fsad_edge.learning.taught_model import content_sha256 as content_sha256
from fsad_edge.learning.threshold import threshold_at_rate
from fsad_edge.learning.weighed import Candidate, WeighedExamples, weigh
from fsad_edge.learning.zones_asked import AskedZone, ZoneTrial, zone_of
from fsad_edge.options import LEAST_RATE, MOST_RATE
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.given import (
    box_of,
    check_encoded,
    check_flag,
    check_kind,
    describe,
    is_positive,
    pairs_of,
    path_of,
)
from fsad_edge.runtime.model import Model, Result
from fsad_edge.runtime.opening import open_image
from fsad_edge.runtime.provenance import utc_now
from fsad_edge.runtime.zones import Zone, ZoneEntry

#: An encoded image and its name, for people.
NamedImage = tuple[str, bytes]

#: How far a threshold can be relied on that a person set without examples.
SET_BY_HAND = (
    "It was set by hand: how many good parts it rejects and how many bad ones it misses is "
    "not known from that."
)

#: A threshold can be set to at most so many times that of the shots, or to one part in so many.
MOST_TIMES = 1_000_000

#: The most images that are kept, and the most bytes of them.
MAX_IMAGES, MAX_BYTES = 200, 256 * 2**20


@dataclass(frozen=True)
class _Trial:
    """A change that was tried on the examples.

    Attributes:
        taught: the model's state with it.
        results: of the examples in that state, by id.
        changes: the examples whose decisions it turns.
    """

    taught: Taught
    results: dict[int, Result]
    changes: list[SideChange]


class Learner(TaughtModel):
    """What was taught next to one model file, applied to a loaded :class:`Model`.

    Use :meth:`open`. Several processes may read and write at the same time: each change takes a
    lock for as long as it lasts, and :meth:`refresh` applies what others changed. An object is safe
    to use from several threads, while others score.

    All images that were kept are examples: a change that would decide one of them wrongly which is
    decided rightly is refused unless it is forced.

    Attributes:
        threshold: the model's threshold with what was taught.
        changes: the examples whose decisions the last change of this object turned.
        weighed: what the last threshold that this object set from examples was weighed from.
        rejection: what the last image that this object called bad did.
        zone_trial: what the last zone that this object set changed, or the last undoing.

    Example:
        >>> image = Path(photograph).read_bytes()
        >>> with Model.load(part_file) as model, Learner.open(part_file, model) as learner:
        ...     entry = learner.add(image, who="anna", force=True)
        ...     learned = model.score(photograph)
        ...     undone = learner.undo(entry.id, who="otto")
        >>> learned.anomalous
        False
    """

    def __init__(self, model_path: Path, model: Model, write: bool) -> None:
        super().__init__(model_path, model)
        self._write, self._wrote = write, False
        self.changes: list[SideChange] = []
        self.weighed: WeighedExamples | None = None
        self.rejection: Rejection | None = None
        self.zone_trial: ZoneTrial | None = None

    @classmethod
    def open(cls, model_path: str | os.PathLike[str], model: Model, write: bool = True) -> Learner:
        """Apply what was learned next to a model file.

        Args:
            model_path: the file that ``model`` was loaded from.
            model: gets the learned reference model and threshold, now and at every change.
            write: False refuses to learn and undo.

        Where the folder belongs to another model file, or nothing of it can be read, the model
        scores as its file says, ``fault`` and ``notice`` tell why, and nothing can be taught.

        Raises:
            InputError: the model file cannot be read, or an argument is of another kind.
            ModelFileError: it is a damaged engine.
        """
        check_kind(model, Model, "the model")
        check_flag(write, "write")
        self = cls(path_of(model_path, "the model file"), model, write)
        self._open()
        return self

    def add(self, image: bytes, who: str, force: bool = False, name: str | None = None) -> Entry:
        """Learn an image as normal; it is on disk and applied when this returns.

        Args:
            image: encoded, as :meth:`~fsad_edge.Model.score` takes it.
            who: the person who calls it good.
            force: learn it whatever :class:`NotNormalError` would say.
            name: the name of the image, for people.

        Raises:
            ImageError: it cannot be decoded or shows nothing.
            NotNormalError: ``force`` is not set, and the image scores above ``DEFECT_RATIO`` times
                the threshold, is not judged, is a bad photograph, or is learned or one of the shots
                already.
            ExamplesLostError: ``force`` is not set, and an example would be lost.
            InputError: it was called bad, a limit is reached, or it cannot be written; nothing is
                changed.
        """
        check_encoded(image)
        check_flag(force, "force")
        check_score_kind(self._model.metadata)
        with self._guard, self._changing():
            digest = sha256(image)
            check_other_side(self._model.metadata, self.active, digest, good=True)
            if not force:
                check_unknown(self._model.metadata, self.active, digest)
            self._check_limits(len(image))
            prepared = prepare(self._model, image)
            if not force:
                [result] = score_images(self._model, [image])
                check_judged(result.reasons, good=True)
            zones = self._taught.zones
            novelty = novelty_of(self._model, prepared, zones)
            bank = self._taught.bank
            score = bank.score(novelty)
            if not force:
                self._check_normal(prepared, novelty, score)
            rows = bank.select_rows(novelty)
            self._check_rows(len(rows))
            # Not by a threshold that a person set: how much good parts differ does not hang on it.
            defective = score > DEFECT_RATIO * self._taught.learned_threshold.value
            entry = self._entry(image, digest, who, Role.NORMAL, name)
            entry = dataclasses.replace(entry, score=score, rows=len(rows), forced=defective)
            # An image that is learned twice says nothing new of how much good parts differ.
            counts = not defective and digest not in {one.sha256 for one in self.normals}
            taught = self._taught.copy()
            telling = telling_of(self._model, prepared, zones)
            places: ShownPlaces | None = None
            if compares_places(self._model):
                places = _as_known(shown_places(self._model, prepared))
            taught.learn(novelty, rows, counts, lambda: telling, places)
            trial = self._try(taught, force)
            entry = self._store.add(entry, image)
            self._fingerprints[entry.id] = novelty.fingerprint
            self._good[digest, zones.key] = lambda: telling
            if places is not None:
                self._shown[digest] = places
            self._take(trial)
            self._store.cache_novelty(entry, novelty, zones.key)
            return entry

    def reject(
        self,
        image: bytes,
        who: str,
        box: Box | None = None,
        force: bool = False,
        name: str | None = None,
    ) -> Entry:
        """Keep an image as an example of a bad part; what looks like it needs a lower score then.

        Args:
            image: encoded, as :meth:`~fsad_edge.Model.score` takes it.
            who: the person who calls it bad.
            box: left, top, right and bottom of the bad place in pixels of the photograph; None
                takes the worst region of the heat map.
            force: keep it although examples would be lost, or although it is kept already.
            name: the name of the image, for people.

        Returns:
            the entry; ``rows`` is 0 where the marked place looks as good parts do. The
            ``rejection`` of this object tells the rest.

        Raises:
            ImageError: it cannot be decoded or shows nothing.
            NotNormalError: ``force`` is not set, and it is called bad already or is not judged.
            ExamplesLostError: ``force`` is not set, and an example would be lost.
            InputError: it was called good, the box is outside it, a limit is reached, or it cannot
                be written; nothing is changed.
        """
        check_encoded(image)
        check_flag(force, "force")
        box = None if box is None else box_of(box)
        check_score_kind(self._model.metadata)
        with self._guard, self._changing():
            digest = sha256(image)
            check_other_side(self._model.metadata, self.active, digest, good=False)
            if not force:
                check_not_rejected(self._model.metadata, self.active, digest)
            self._check_limits(len(image))
            [result] = score_images(self._model, [image])
            if not force:
                check_judged(result.reasons, good=False)
            entry = self._entry(image, digest, who, Role.REJECTED, name, box)
            rows = rejected_of(self._model, image, box, self._taught.zones)
            taken = self._taught.reaching(rows)
            entry = dataclasses.replace(entry, score=result.score, rows=taken)
            size = photograph_size(self._model, image)
            drawn = None if box is None else box_fractions(size, box)
            inside = marked_place(result.anomaly_map, drawn)
            taught = self._taught.copy()
            taught.reject(rows)
            trial = self._try(taught, force)
            entry = self._store.add(entry, image)
            self._take(trial)
            after = self._results[entry.id]
            self.rejection = Rejection.of(entry, inside, size, result, after)
            return entry

    def keep_example(self, image: bytes, who: str, good: bool, name: str | None = None) -> Entry:
        """Keep an image as an example of a good or a bad part; it teaches nothing.

        Args:
            image: encoded, as :func:`load_resized` takes it.
            who: the person who calls it so.
            good: whether it shows a good part.
            name: the name of the image, for people.

        Raises:
            ImageError: it cannot be decoded or shows nothing.
            NotNormalError: it is kept already.
            InputError: it was called the opposite, a limit is reached, or it cannot be written.
        """
        check_encoded(image)
        with self._guard, self._changing():
            digest = sha256(image)
            check_other_side(self._model.metadata, self.active, digest, good)
            if known := find_entry(self.active, digest, *Role):
                raise NotNormalError(f"the image is kept already, as {title(known)}.")
            self._check_limits(len(image))
            [result] = score_images(self._model, [image])
            entry = self._entry(image, digest, who, Role.GOOD if good else Role.BAD, name)
            entry = dataclasses.replace(entry, score=result.score)
            entry = self._store.add(entry, image)
            self._take(_Trial(self._taught, self._results, []))
            return entry

    def set_threshold(
        self,
        who: str,
        value: float | None = None,
        ratio: float | None = None,
        false_alarm_rate: float | None = None,
        force: bool = False,
    ) -> Setting:
        """Set the threshold by one of the three numbers; it is on disk when this returns.

        Where one that a person set is that already, it is returned and nothing is written.

        Args:
            who: the person who sets it.
            value: the threshold itself.
            ratio: the threshold as a multiple of the present one.
            false_alarm_rate: the share of good parts that may be rejected, as a fraction; the
                threshold follows it when more is learned.
            force: set it although examples would be lost.

        Raises:
            ExamplesLostError: ``force`` is not set, and an example would be lost.
            InputError: not one number was given, it is out of range, or it cannot be written.
        """
        check_flag(force, "force")
        with self._guard, self._changing():
            planned = self.plan_threshold(who, value, ratio, false_alarm_rate)
            taught = self._taught.copy()
            taught.setting = planned
            trial = self._try(taught, force)
            if (present := self._set_already(planned)) is not None:
                self.changes = []
                return present
            self._store.set(planned)
            self._take(trial)
            return planned

    def plan_threshold(
        self,
        who: str,
        value: float | None = None,
        ratio: float | None = None,
        false_alarm_rate: float | None = None,
    ) -> Setting:
        """What :meth:`set_threshold` would set; nothing is changed.

        Arguments are as of that.

        Raises:
            InputError: not one number was given, or it is out of range.
        """
        given = {"value": value, "ratio": ratio, "false_alarm_rate": false_alarm_rate}
        named = {name: number for name, number in given.items() if number is not None}
        if len(named) != 1:
            raise InputError("give one of a value, a ratio and a false alarm rate.")
        [(name, number)] = named.items()
        if isinstance(number, bool) or not isinstance(number, Real):
            raise InputError(f"the {name.replace('_', ' ')} is {number!r:.80} and not a number.")
        if not is_positive(number):
            raise InputError(f"the {name.replace('_', ' ')} must be a number above 0, and finite.")
        number = float(number)
        if name == "false_alarm_rate" and not LEAST_RATE <= number <= MOST_RATE:
            raise InputError(
                f"a false alarm rate is a fraction from {LEAST_RATE:g} up to {MOST_RATE:g}, not "
                f"{number:.3g}."
            )
        with self._guard:
            learned, present = self._taught.learned_threshold, self.threshold.value
            if name == "false_alarm_rate":
                found = threshold_at_rate(learned, self._taught.left_out, number)
                method = f"a false alarm rate of {number:.3g}"
                return self._new_setting(who, found.value, method, found.reliability, number)
            chosen = number if name == "value" else number * present
            method = "as a value" if name == "value" else f"{number:.3g} times {present:.4g}"
            own = self._model.metadata.threshold.value
            if not own / MOST_TIMES <= chosen <= own * MOST_TIMES:
                raise InputError(
                    f"a threshold of {chosen:.3g} decides nothing: that of the shots is {own:.4g}, "
                    f"and at most {MOST_TIMES:,} times more or less can be set."
                )
            return self._new_setting(who, chosen, method, SET_BY_HAND, None)

    def preview(self, threshold: float) -> list[SideChange]:
        """The examples whose decisions another threshold would turn; nothing is changed.

        Raises:
            InputError: the threshold is no number above 0.
        """
        if not is_positive(threshold):
            raise InputError(f"a threshold is a number above 0, not {threshold!r}.")
        with self._guard:
            before = self._states(self._taught, self._results)
            after = {
                one.entry.id: ExampleState.of(
                    one.entry, self._results[one.entry.id], threshold
                ).decision
                for one in before
            }
            return side_changes(before, after)

    def set_threshold_from_examples(
        self,
        good: Sequence[NamedImage],
        bad: Sequence[NamedImage],
        who: str,
        force: bool = False,
    ) -> Setting:
        """Set the best threshold for examples, which are kept; those of before count, too.

        Where one that a person set is that already, and no example is new, it is returned and
        nothing is written.

        Args:
            good: names and encoded images of good parts.
            bad: those of bad parts; with none of both, the examples of before decide.
            who: the person who sets it.
            force: set it although examples of before would be lost.

        Raises:
            ImageError: an image cannot be decoded or shows nothing.
            ExamplesLostError: ``force`` is not set, and an example of before would be lost.
            InputError: there is no example, one is on both sides, what is given is no list of
                names and bytes, or it cannot be written.
        """
        check_flag(force, "force")
        with self._guard, self._changing():
            found = self.weigh_examples(good, bad)
            threshold = found.result.threshold
            method, reliability = threshold.method, found.sentence
            taught = self._taught.copy()
            taught.setting = self._new_setting(who, threshold.value, method, reliability, None)
            trial = self._try(taught, force)
            kept = self._worth_keeping(found, threshold.value)
            if not kept and (present := self._set_already(taught.setting)) is not None:
                self.changes, self.weighed = [], found
                return present
            for candidate in kept:
                entry = self._entry(
                    candidate.image, candidate.sha256, who, candidate.role, candidate.name
                )
                self._store.add(dataclasses.replace(entry, score=candidate.score), candidate.image)
            setting = self._new_setting(who, threshold.value, method, reliability, None)
            self._store.set(setting)
            taught.setting = setting
            self._take(trial)
            self.weighed = found
            return setting

    def _set_already(self, planned: Setting) -> Setting | None:
        """The setting in effect, where the planned one would change nothing: undoing that would
        undo nothing."""
        present = self.setting
        if present is None or present.false_alarm_rate != planned.false_alarm_rate:
            return None
        # One by a rate follows what is learned, so that its value at that time says nothing.
        by_rate = present.false_alarm_rate is not None
        same = by_rate or math.isclose(present.value, planned.value, rel_tol=1e-6)
        return present if same else None

    def weigh_examples(
        self, good: Sequence[NamedImage], bad: Sequence[NamedImage]
    ) -> WeighedExamples:
        """Find the best threshold for examples, with those of before, and change nothing.

        Arguments and errors are as of :meth:`set_threshold_from_examples`.
        """
        with self._guard:
            new: list[Candidate] = []
            learned, known = list[str](), 0
            for role, images in ((Role.GOOD, good), (Role.BAD, bad)):
                for name, image in pairs_of(images):
                    if (one := self._candidate(role, name, image, new)) is not None:
                        new.append(one)
                    elif find_entry(self.active, sha256(image), Role.NORMAL, Role.REJECTED):
                        learned.append(name)
                    else:
                        known += 1
            return weigh(
                self._taught.learned_threshold,
                self.threshold.value,
                self._taught.left_out,
                self._states(self._taught, self._results),
                new,
                self._model.metadata.in_banks,
                learned,
                known,
            )

    def try_zone(self, asked: AskedZone) -> ZoneTrial:
        """What a zone would change; nothing is changed.

        Raises:
            InputError: as :meth:`add_zone`.
        """
        return self.plan_zone(asked, "")[1]

    def plan_zone(self, asked: AskedZone, who: str, note: str = "") -> tuple[ZoneEntry, ZoneTrial]:
        """A zone as it would be set, and what it would change; nothing is changed.

        Args:
            asked: the zone.
            who: the person who asks.
            note: why, in the person's words.

        Raises:
            InputError: as :meth:`add_zone`.
        """
        with self._guard:
            entry, _, told = self._plan_zone(asked, who, note)
            return entry, told

    def add_zone(
        self, asked: AskedZone, who: str, note: str = "", force: bool = False
    ) -> ZoneEntry:
        """Set a zone; it is on disk and applied when this returns.

        Args:
            asked: the zone.
            who: the person who sets it.
            note: why, in the person's words.
            force: set it although examples would be lost.

        Raises:
            ExamplesLostError: ``force`` is not set, and an example would be lost.
            InputError: the file takes no zones, the zone covers nothing, nothing would be left to
                look at, an own threshold cannot be reached, or it cannot be written.
        """
        check_flag(force, "force")
        with self._guard, self._changing():
            entry, trial, told = self._plan_zone(asked, who, note)
            if not force:
                refuse_losses(trial.changes)
            self._store.set_zone(entry)
            self.zone_trial = told
            self._take(trial)
            return entry

    def _plan_zone(
        self, asked: AskedZone, who: str, note: str = ""
    ) -> tuple[ZoneEntry, _Trial, ZoneTrial]:
        """A zone as it would be set, tried on the examples, and what it would change."""
        before, here = self._taught, self._store.zones_without()
        number, name = self._store.next_id, _one_line(who)
        words = _one_line(note, "the note", "give a text")

        def entry_of(zone: Zone) -> ZoneEntry:
            return ZoneEntry(number, utc_now(), name, zone, words, asked.own_threshold)

        def threshold_with(zone: Zone) -> float:
            return self._replay(more=[entry_of(zone)]).threshold.value

        zone = zone_of(self._model, here, threshold_with, asked)
        entry = entry_of(zone)
        trial = self._try(self._replay(more=[entry]), force=True)
        told = ZoneTrial.of(self._model.metadata, before, trial.taught, trial.changes, zone)
        return entry, trial, told

    def undo(
        self, number: int | None = None, who: str = "", force: bool = False
    ) -> Entry | Setting | ZoneEntry:
        """Undo a change: the model is as if it had never been made.

        An image is deleted. The journal keeps that the change was made and undone.

        Args:
            number: id of the image, setting or zone; None takes the last active one.
            who: the person who undoes it.
            force: undo it although another example would be lost.

        Raises:
            ExamplesLostError: ``force`` is not set, and another example would be lost.
            InputError: there is no such active change, or the journal cannot be written.
        """
        check_flag(force, "force")
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise InputError(f"the id of a change is a whole number, not {describe(number)}.")
        with self._guard:
            self.refresh()
            self._refuse_fault()
            self._check_undo(number)  # before a folder is made for nothing
            with self._changing():
                found = self._check_undo(number)
                taught = self._replay(without=found)
                trial = self._try(taught, True, without=found)
                if not force:
                    refuse_losses([c for c in trial.changes if not self._goes_back(c.entry, found)])
                self.zone_trial = ZoneTrial.of(
                    self._model.metadata, self._taught, taught, trial.changes
                )
                undone = self._store.undo(found, _one_line(who))
                self._fingerprints.pop(found, None)
                self._results.pop(found, None)
                self._take(trial)
                return undone

    def _goes_back(self, example: Entry, undone: int) -> bool:
        """Whether an example that undoing a change loses is only as wrong as it was before that."""
        if undone in self._store.changes.settings:
            return _was_wrong(example)
        return any(one.id == undone and one.sha256 == example.sha256 for one in self.active)

    def close(self) -> None:
        """Refuse to learn from now on; the model keeps what was learned."""
        with self._guard:
            self._write = False

    def __enter__(self) -> Learner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self, taught: Taught, force: bool, without: int | None = None) -> _Trial:
        """A change and the examples that it would turn; refuses to lose one unless forced."""
        same = taught.bank_is(self._taught)
        results = self._results if same else dict[int, Result]()
        before = self._states(self._taught, self._results)
        after = {one.entry.id: one.decision for one in self._states(taught, results)}
        kept = [one for one in before if one.entry.id != without]
        changes = side_changes(kept, after)
        if not force:
            refuse_losses(changes)
        return _Trial(taught, results, changes)

    def _take(self, trial: _Trial) -> None:
        """Score with a change that is on disk."""
        self._made, self._results, self.changes = trial.taught, trial.results, trial.changes
        self._apply()
        self._store.write_decisions(self.examples(), self._model.provider)

    def _entry(
        self,
        image: bytes,
        digest: str,
        who: str,
        role: Role,
        name: str | None,
        box: Box | None = None,
    ) -> Entry:
        """The next entry, without its score and rows."""
        number = self._store.next_id
        return Entry(
            id=number,
            when=utc_now(),
            who=_one_line(who),
            sha256=digest,
            file=f"{number:04d}.{_suffix(image)}",
            score=0.0,
            threshold=self.threshold.value,
            rows=0,
            forced=False,
            name=name,
            role=role,
            box=box,
        )

    def _new_setting(
        self, who: str, value: float, method: str, reliability: str, rate: float | None
    ) -> Setting:
        number = self._store.next_id
        return Setting(number, utc_now(), _one_line(who), value, rate, method, reliability)

    def _candidate(
        self, role: Role, name: str, image: bytes, others: Sequence[Candidate]
    ) -> Candidate | None:
        """An image as an example, with its score; None where it is kept on that side already."""
        with _naming(name):
            check_encoded(image)
        digest = sha256(image)
        with _naming(name):
            check_other_side(self._model.metadata, self.active, digest, role.is_good)
        for other in others:
            if other.sha256 == digest and other.role is not role:
                raise InputError(f"{name} is given as a good and as a bad example: give it once.")
        kept = {entry.sha256 for entry in self.active} | {other.sha256 for other in others}
        if digest in kept:
            return None
        with _naming(name):
            [result] = score_images(self._model, [image], self._scoring_state(self._taught))
        return Candidate(role, name, image, digest, result.score, result.decision)

    def _worth_keeping(self, found: WeighedExamples, threshold: float) -> list[Candidate]:
        """The new examples nearest to the threshold, as many as there is room for."""
        held, size = len(self._store.kept), self._store.images.size(self._store.kept)
        kept: list[Candidate] = []
        held_in_file = self._model.metadata.in_banks
        new = [one for one in found.new if one.sha256 not in held_in_file]
        for one in sorted(new, key=lambda one: abs(math.log(one.score / threshold + 1e-9))):
            size += len(one.image)
            if held + len(kept) >= MAX_IMAGES or size > MAX_BYTES:
                break
            kept.append(one)
        return kept

    def _refuse_fault(self) -> None:
        if self.fault is not None:
            raise InputError(f"{self._path} cannot be taught: {self.fault}")

    def _check_undo(self, number: int | None) -> int:
        """The id of the active change to undo."""
        active = sorted(
            [entry.id for entry in self._store.kept]
            + [one.id for one in self._store.changes.settings.values() if one.undone is None]
            + [one.id for one in self._store.zones_without()]
        )
        if not active:
            raise InputError(
                f"{self._path} has no learned image to undo, and no threshold or zone set."
            )
        if number is None:
            return active[-1]
        if number not in active:
            done = any(entry.id == number for entry in self.entries())
            changes = self._store.changes
            why = (
                f"{number} is undone already"
                if done or number in changes.settings or number in changes.zones
                else f"there is no learned image {number} to undo, and no threshold or zone of "
                "that id"
            )
            raise InputError(f"{why}: take one of {', '.join(map(str, active))}.")
        return number

    def _check_normal(self, prepared: UInt8Array, novelty: Novelty, score: float) -> None:
        """Refuse an image that is known already, scores like a defect or is no good photograph."""
        metadata, threshold = self._model.metadata, self.threshold.value
        if score <= threshold:  # above it a small place may differ, which a fingerprint hides
            check_new(metadata, self.normals, self._fingerprints, novelty)
        check_normal(metadata, prepared, score, threshold)

    def _check_limits(self, size: int) -> None:
        count, held = len(self._store.kept), self._store.images.size(self._store.kept)
        if count >= MAX_IMAGES or held + size > MAX_BYTES:
            raise InputError(
                f"{count} images ({held / 2**20:.0f} MiB) are kept, and at most {MAX_IMAGES} "
                f"({MAX_BYTES // 2**20} MiB) can be: {self._make_room()}"
            )

    def _check_rows(self, count: int) -> None:
        bank = self._taught.bank
        most = bank.max_learned_rows
        if len(bank.learned_rows) + count > most:
            raise InputError(
                f"the memory bank has no room for {count} more rows of learned images ({most} at "
                f"most): {self._make_room()}"
            )

    def _make_room(self) -> str:
        return (
            "undo some, or run  fsad-edge finetune  with the shots and the images in "
            f"{self._store.images.path}."
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let this process alone write during the block, from what others have written."""
        if not self._write:
            raise InputError(f"{self.folder} was opened for reading, or is closed.")
        self.refresh()  # finds the folder, if it was moved or made
        self._refuse_fault()
        with self._store.lock():
            # The first time also removes what a killed process left, and fills the cache.
            if self._store.changed() or not self._wrote:
                self._load()
            self._wrote = True
            try:
                yield
            except ModelFileError:  # an image was damaged since it was looked at
                self._store.read_again()
                raise


def _was_wrong(entry: Entry) -> bool:
    """Whether an example was decided wrongly when it was given with a threshold.

    Going back to the threshold of before does not lose it.
    """
    only_example = entry.role in {Role.GOOD, Role.BAD}
    return only_example and entry.role.is_good == (entry.score > entry.threshold)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let errors about "the image" name it."""
    try:
        yield
    except InputError as error:
        raise type(error)(str(error).replace("the image", name, 1)) from None


def _one_line(who: str, what: str = "who", cure: str = "give the name of the person") -> str:
    """A person's name, or a note, without line breaks and characters that are not printed."""
    if not isinstance(who, str):
        raise InputError(f"{what} is {who!r} and not a text: {cure}.")
    return "".join(one for one in " ".join(who.split()) if one.isprintable())


def _suffix(image: bytes) -> str:
    """A file name's ending for encoded bytes that can be decoded."""
    with open_image(io.BytesIO(image), "the image") as opened:
        return (opened.format or "image").lower()


def _as_known(shown: Float32Array) -> ShownPlaces:
    return lambda: shown
