"""Documents, graphs and arrays of wrong structure, in model files and model directories.

Each is tried as it is, where a seal or a hash refuses it or nothing does, and with the seal and the
hashes mended, so that what checks the structure is reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import fsad_edge
from fsad_edge import Model
from fsad_edge.runtime.metadata import Metadata
from tests.fuzz.children import in_child
from tests.fuzz.mending import WHY_NOT, seal_manifest, seal_model_file
from tests.fuzz.mutations import damage_document
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.subject import (
    SIDE,
    Behaviour,
    Subject,
    behaviour,
    behaviour_of,
    differences,
    encoded,
    is_sane,
    photograph,
)

#: The description's key in the file.
KEY = "fsad_edge"

#: Each kind of case with its share: reading a text is cheap, making a file is not.
_SHARES = {
    "text": 60,
    "description": 12,
    "description mended": 12,
    "graph": 4,
    "graph mended": 4,
    "manifest": 4,
    "manifest mended": 2,
    "arrays": 1,
    "arrays mended": 3,
    "call": 3,
}

_ARRAY_CHANGES = (
    *("nan", "inf", "huge", "float64", "int8", "object", "flat", "empty", "transposed", "fewer"),
    *("missing", "renamed", "extra", "zeros", "scalar", "text"),
)
_GRAPH_CHANGES = (
    *("nan", "inf", "huge", "zeros", "no dims", "long dims", "negative dims", "type", "external"),
    *("missing", "input name", "output name", "input shape", "node", "twice", "metadata twice"),
)
_CALLS = (
    *("uint16", "float", "bool", "nan", "two channels", "four channels", "empty", "no batch"),
    *("empty batch", "list", "text", "none", "closed", "object", "one pixel", "grey"),
)


class Attack:
    """Changes the structure of what a model consists of."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        self._data = subject.file.read_bytes()
        self._text = next(
            one.value for one in onnx.load(subject.file).metadata_props if one.key == KEY
        )
        self._document = json.loads(self._text)
        self._manifest = json.loads((subject.part / "manifest.json").read_text())
        self._before = in_child(lambda: behaviour(subject.file, subject.probes)).value
        self._exported: Behaviour = in_child(lambda: self._export(subject.part)).value

    def make(self, rng: random.Random) -> Steps:
        [kind] = rng.choices([*_SHARES], [*_SHARES.values()])
        if kind.startswith(("text", "description")):
            return {"kind": kind, "text": damage_document(rng, self._document)}
        if kind.startswith("manifest"):
            return {"kind": kind, "text": damage_document(rng, self._manifest)}
        if kind == "call":
            return {"kind": kind, "how": rng.choice(_CALLS)}
        changes = _GRAPH_CHANGES if kind.startswith("graph") else _ARRAY_CHANGES
        return {"kind": kind, "how": rng.choice(changes), "which": rng.randrange(1000)}

    def run(self, steps: Steps) -> Verdict:
        kind, _, mended = steps["kind"].partition(" ")
        doers: dict[str, Callable[[Steps, bool], Verdict]] = {
            "text": self._run_text,
            "description": self._run_file,
            "graph": self._run_file,
            "manifest": self._run_part,
            "arrays": self._run_part,
            "call": self._run_call,
        }
        return doers[kind](steps, bool(mended))

    def _run_text(self, steps: Steps, mended: bool) -> Verdict:
        def job() -> bool:
            metadata = Metadata.from_json(steps["text"], "part.onnx")
            json.dumps(metadata.summary(), allow_nan=False)
            return bool(json.loads(metadata.to_json()) == self._document)

        def judge(same: Any) -> Verdict:
            return Verdict(Outcome.SAME if same else Outcome.ACCEPTED)

        return in_child(job).verdict(judge)

    def _run_file(self, steps: Steps, mended: bool) -> Verdict:
        if "text" in steps:
            data = _with_text(self._data, steps["text"])
        else:
            data = change_graph(self._data, steps["how"], steps["which"])
        if mended:
            sealed = seal_model_file(data)
            if sealed is None:
                return Verdict(Outcome.SKIPPED, WHY_NOT)
            data = sealed
        file = self._folder / "part.onnx"
        file.write_bytes(data)
        ended = in_child(lambda: self._look_at(file))
        return ended.verdict(lambda found: self._judge(found, self._before, mended))

    def _look_at(self, file: Path) -> Behaviour:
        with Model.load(file, "cpu", threads=1) as model:
            json.dumps(model.metadata.summary(), allow_nan=False)
            return behaviour_of(model, self._subject.probes)

    def _judge(self, found: Behaviour, before: Behaviour, mended: bool) -> Verdict:
        differ = differences(before, found)
        if not differ:
            return Verdict(Outcome.SAME)
        if not mended:
            return Verdict(Outcome.SILENT, differ)
        nonsense = is_sane(found)
        return Verdict(Outcome.SILENT, nonsense) if nonsense else Verdict(Outcome.ACCEPTED, differ)

    def _run_part(self, steps: Steps, mended: bool) -> Verdict:
        part = self._folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self._subject.part, part)
        text: str | None = steps.get("text")
        if text is None:
            name = ("reference.npz", "learned.npz")[steps["which"] % 2]
            name = name if (part / name).exists() else "reference.npz"
            data = change_arrays((part / name).read_bytes(), steps["how"], steps["which"])
            (part / name).write_bytes(data)
            if mended:
                files = {**self._manifest["files"], name: hashlib.sha256(data).hexdigest()}
                text = json.dumps({**self._manifest, "files": files})
        if text is not None:
            text = seal_manifest(text) if mended else text
            (part / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        ended = in_child(lambda: self._export(part))
        return ended.verdict(lambda found: self._judge(found, self._exported, mended))

    def _export(self, part: Path) -> Behaviour:
        """What the model file says that is made from a directory; its times are left out."""
        made = Path(tempfile.mkdtemp(dir=self._folder)) / "part.onnx"
        fsad_edge.export(part, made)
        found = behaviour(made, self._subject.probes)
        with Model.load(made, "cpu", threads=1) as model:
            document = json.loads(model.metadata.to_json())
        del document["created"]
        found["metadata"] = hashlib.sha256(json.dumps(document).encode()).hexdigest()
        return found

    def _run_call(self, steps: Steps, mended: bool) -> Verdict:
        def job() -> bool:
            return _call(self._subject.file, steps["how"])

        def judge(same: Any) -> Verdict:
            if same:
                return Verdict(Outcome.SAME)
            return Verdict(Outcome.SILENT, f"{steps['how']}: scored without a word")

        found = in_child(job).verdict(judge)
        if found.outcome is Outcome.TRACEBACK and "\nTypeError: " in found.detail:
            return Verdict(Outcome.REFUSED, found.detail)  # Python's way to refuse a type
        return found

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _with_text(data: bytes, text: str) -> bytes:
    """A model file with another description."""
    model = onnx.load_from_string(data)
    [entry] = [one for one in model.metadata_props if one.key == KEY]
    entry.value = text.encode("utf-8", "replace").decode()
    return bytes(model.SerializeToString())


def _first(model: onnx.ModelProto, which: int) -> onnx.TensorProto:
    """One of the tensors of numbers."""
    tensors = [one for one in model.graph.initializer if one.data_type in {1, 10}]
    found: onnx.TensorProto = tensors[which % len(tensors)]
    return found


def change_graph(data: bytes, how: str, which: int) -> bytes:
    """A model file whose graph has something wrong."""
    model = onnx.load_from_string(data)
    graph, tensor = model.graph, _first(model, which)
    if how == "external":
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../etc/passwd")
    elif how == "missing":
        graph.initializer.remove(tensor)
    elif how.endswith("name"):
        ports = graph.input if how == "input name" else graph.output
        ports[which % len(ports)].name = "other"
    elif how == "input shape":
        for dimension in graph.input[which % len(graph.input)].type.tensor_type.shape.dim:
            dimension.dim_value = 2**31
    elif how == "node":
        del graph.node[which % len(graph.node)]
    elif how == "twice":
        graph.initializer.add().CopyFrom(tensor)
    elif how == "metadata twice":
        model.metadata_props.add(key=KEY, value="{}")
    else:
        _change_tensor(tensor, how, which)
    return bytes(model.SerializeToString())


def _change_tensor(tensor: onnx.TensorProto, how: str, which: int) -> None:
    if how.endswith("dims"):
        dims: dict[str, list[int]] = {"no dims": [], "long dims": [2**62] * 2}
        del tensor.dims[:]
        tensor.dims.extend(dims.get(how, [-1]))
    elif how == "type":
        tensor.data_type = (0, 6, 7, 8, 11, 99)[which % 6]
    else:
        values = numpy_helper.to_array(tensor).copy()
        huge = 1e30 if values.itemsize > 2 else 6e4
        fill = {"nan": np.nan, "inf": np.inf, "huge": huge, "zeros": 0.0}
        values.flat[which % max(values.size, 1) :: 7] = fill[how]
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_arrays(data: bytes, how: str, which: int) -> bytes:
    """A file of arrays with something wrong."""
    with np.load(io.BytesIO(data)) as file:
        arrays: dict[str, Any] = dict(file)
    name = sorted(arrays)[which % len(arrays)]
    values = arrays[name].copy()
    fill = {"nan": np.nan, "inf": np.inf, "huge": 1e30, "zeros": 0.0}
    changes: dict[str, Callable[[], Any]] = {
        "float64": lambda: values.astype(np.float64),
        "int8": lambda: values.astype(np.int8),
        "object": lambda: np.array([{}, None], object),
        "flat": lambda: values.reshape(-1),
        "empty": lambda: values[:0],
        "transposed": lambda: values.T[..., None],
        "fewer": lambda: values[: len(values) // 2],
        "scalar": lambda: np.float32(1),
        "text": lambda: np.array(["a", "b"]),
    }
    if how in fill:
        values.flat[which % max(values.size, 1) :: 5] = fill[how]
        arrays[name] = values
    elif how in changes:
        arrays[name] = changes[how]()
    elif how == "extra":
        arrays["unheard_of"] = values
    else:
        del arrays[name]
        arrays |= {f"{name}_": values} if how == "renamed" else {}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _call(file: Path, how: str) -> bool:
    """Whether an unusual call of the library gives what the usual one does, or is not judged."""
    image = np.asarray(photograph(51))
    whole = encoded(photograph(51))
    with Model.load(file, "cpu", threads=1) as model:
        usual = model.score(whole).score
        given: dict[str, Any] = {
            "uint16": image.astype(np.uint16) * 257,
            "float": image / 255,
            "bool": image > 100,
            "nan": np.full((SIDE, SIDE, 3), np.nan, np.float32),
            "two channels": image[..., :2],
            "four channels": np.dstack([image, image[..., :1]]),
            "empty": image[:0],
            "no batch": image.reshape(-1),
            "list": image.tolist(),
            "text": "no such file",
            "none": None,
            "object": np.array([None]),
            "one pixel": image[:1, :1],
            "grey": image[..., 0],
        }
        if how == "empty batch":
            return model.score_batch([]) == []
        if how == "closed":
            model.close()
            model.score(whole)
            return False
        if how == "grey":  # is taken as a grey file is
            usual = model.score(np.repeat(image[..., :1], 3, axis=2)).score
        result = model.score(given[how])
        return bool(result.score == usual) or str(result.decision) == "not_judged"
