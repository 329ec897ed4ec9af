"""The examples that files of a part were taught, tried on a new file of that part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import ExamplesLostError, FsadEdgeError
from fsad_edge.learning.examples import name_changes
from fsad_edge.learning.journal import Setting
from fsad_edge.learning.learner import Learner, content_sha256
from fsad_edge.learning.places import folders_beside
from fsad_edge.learning.regression import Regression, try_examples
from fsad_edge.options import Provider
from fsad_edge.runtime.files import is_file
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Model


@dataclass(frozen=True)
class RegressionSet:
    """The examples beside a new file that another file of its part was taught.

    Attributes:
        model: the other file.
        folder: the folder that holds them.
        result: what the new file makes of them; None where they could not be tried.
        setting: the threshold that a person set for the other file, where the new one replaces it.
        problem: why they could not be tried, one sentence.
    """

    model: Path
    folder: Path
    result: Regression | None
    setting: Setting | None = None
    problem: str | None = None

    @property
    def sentence(self) -> str | None:
        """What to tell a person; None where all is as it was."""
        if self.result is None:
            return f"the examples in {self.folder} were not tried: {self.problem}"
        said = []
        if self.result.changes:
            said.append(
                f"{len(self.result.changes)} of {self.result.count} examples in {self.folder} "
                f"change sides against {self.model.name} with what it was taught: "
                f"{name_changes(self.result.changes)}."
            )
        if self.setting is not None:
            said.append(
                f"The threshold {self.setting.value:.4g} that {self.setting.who} set does not "
                "count with the new file, whose scores may differ: set it with  fsad-edge "
                f"threshold {self.model.name} --value ."
            )
        return " ".join(said) or None


def try_regression_sets(
    output: Path, data: bytes, on_progress: Callable[[float], None]
) -> list[RegressionSet]:
    """Try the examples of files of the same part on a file that is about to be written.

    These are the file that it replaces and, beside it, files of the same name of the model that
    have shots in common with it.

    Args:
        output: where the file will be.
        data: its bytes.
        on_progress: called with the share that is done, where there is something to try.
    """
    folders: dict[str, Path] = {}
    for folder, owner in folders_beside(output):
        folders.setdefault(owner, folder)
    if not folders:
        return []
    sets = []
    on_progress(0.0)
    output = output.absolute()
    with Model.from_bytes(data, str(output), Provider.CPU) as new:
        files = list(_files_of_part(output, set(folders), new.metadata))
        for digest, file in files:
            sets.append(_try_one(file, folders[digest], new, file == output))
            on_progress(len(sets) / len(files))
    return sets


def refuse_lost(output: Path, sets: list[RegressionSet]) -> None:
    """Refuse a new file that decides examples wrongly which another file decides rightly.

    Raises:
        ExamplesLostError: it does; the sentence names them.
    """
    for one in sets:
        lost = () if one.result is None else one.result.lost
        if one.result is not None and lost:
            other = "the file before" if one.model == output.absolute() else one.model.name
            raise ExamplesLostError(
                f"{output.name} would decide {len(lost)} of {one.result.count} examples in "
                f"{one.folder} wrongly that {other} decides rightly with what it was taught "
                f"({name_changes(lost)}): nothing was written. Add --allow-lost (allow_lost=True "
                "in Python) to write it all the same; it can be taught the same with  fsad-edge "
                f"bank add {output} {one.folder} .",
                tuple(change.entry.id for change in lost),
            )


def _files_of_part(
    output: Path, digests: set[str], metadata: Metadata
) -> Iterator[tuple[str, Path]]:
    """The ONNX files of a part beside a new one that were taught something, the replaced first."""
    beside = [path for path in sorted(output.parent.glob("*.onnx")) if path != output]
    for path in (output, *beside):
        with contextlib.suppress(FsadEdgeError, OSError):
            if not is_file(path) or (digest := content_sha256(path)) not in digests:
                continue
            with Model.load(path, Provider.CPU, golden=False) as model:
                other = model.metadata
            same = {*other.shots.sha256} & {*metadata.shots.sha256}
            if path == output or (other.name == metadata.name and same):
                digests = digests - {digest}
                yield digest, path


def _try_one(file: Path, folder: Path, new: Model, replaced: bool) -> RegressionSet:
    try:
        with (
            Model.load(file, Provider.CPU, golden=False) as model,
            Learner.open(file, model, write=False) as learner,
        ):
            if learner.fault is not None:
                return RegressionSet(file, folder, None, problem=learner.fault)
            setting = learner.setting if replaced else None
            return RegressionSet(file, folder, try_examples(learner, new), setting)
    except FsadEdgeError as error:
        return RegressionSet(file, folder, None, problem=str(error))
