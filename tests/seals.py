"""Files that are changed and sealed again, so that what is tested is not their seal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.runtime.seal import KEY as SEAL
from fsad_edge.runtime.seal import REMARK


def described(data: bytes, document: str | dict[str, Any]) -> bytes:
    """A model file with another description; its seal fits."""
    text = document if isinstance(document, str) else json.dumps(document)
    return replace(data, {}, {KEY: text})


def as_before_seals(data: bytes) -> bytes:
    """A model file as a version wrote it that had no seal."""
    model = onnx.load_from_string(data)
    assert model.doc_string == REMARK
    model.doc_string = ""
    kept = [entry for entry in model.metadata_props if entry.key != SEAL]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return bytes(model.SerializeToString())


def write_manifest(part: Path, document: dict[str, Any]) -> None:
    """Write a manifest whose own SHA-256 fits."""
    zeros = "0" * 64
    document = {**document, "files": {**document["files"], "manifest.json": zeros}}
    text = json.dumps(document, indent=1)
    own = f'"manifest.json": "{zeros}"'
    text = text.replace(own, own.replace(zeros, sha256(text.encode())))
    (part / "manifest.json").write_text(text)
