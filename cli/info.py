"""``fsad-edge info``: what a model file or directory says of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from fsad_edge.cli.console import out, print_facts, print_json
from fsad_edge.errors import MissingExtraError
from fsad_edge.runtime.metadata import Threshold


def info(
    file: Annotated[Path, typer.Argument(help="File of export, or directory of finetune.")],
    json_: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Print where a model came from and how it decides."""
    if file.is_dir():
        document, threshold, facts = _directory(file)
    else:
        document, threshold, facts = _file(file)
    if json_:
        print_json(document)
        return
    out.print(str(file), markup=False)
    print_facts(
        {
            **facts,
            "threshold": f"{threshold.value:.4g} on the {document['score']} score, for a false "
            f"alarm rate of {threshold.false_alarm_rate:.2g}",
            "from": threshold.method,
            "reliability": threshold.reliability,
            "made": f"{document['created']} with "
            + ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
        }
    )


def _file(file: Path) -> tuple[dict[str, Any], Threshold, dict[str, str]]:
    from fsad_edge.runtime.engine_file import is_engine, read_engine
    from fsad_edge.runtime.metadata import Metadata
    from fsad_edge.runtime.model import Model

    engine = None
    if file.suffix == ".engine" and file.is_file() and is_engine(data := file.read_bytes()):
        engine = read_engine(data, str(file)).header  # any machine can tell what it holds
        metadata, graph = Metadata.from_json(engine.metadata, str(file)), engine.graph
    else:
        with Model.load(file, "cpu", golden=False) as model:
            metadata, graph = model.metadata, model.graph
    backbone = metadata.backbone
    facts = {
        "name": metadata.name,
        "input": f"uint8 {metadata.height}x{metadata.width} RGB; {metadata.resize}",
        "encoder": f"{backbone['name']} from {backbone['source']}, {backbone['epochs']} epochs",
        "weights": f"SHA-256 {backbone['sha256'][:16]}… before fine-tuning",
        "shots": str(metadata.shots.count),
        "memory bank": f"{metadata.bank_rows} rows",
        "precision": metadata.precision,
        "graph": f"{graph[:16]}…; parts of one graph share a session in  fsad-edge serve"
        if graph
        else "not known: built before engines said so",
        "golden images": str(len(metadata.golden)),
        "size": f"{file.stat().st_size / 1e6:.1f} MB",
    }
    document = {**metadata.summary(), "graph": graph}
    if engine is not None:
        facts["engine"] = (
            f"TensorRT {engine.tensorrt} on {engine.gpu}, batches of {engine.options.batch}, from "
            f"{engine.source_name} (SHA-256 {engine.source_sha256[:16]}…)"
        )
        document["engine"] = {**dataclasses.asdict(engine), "key": engine.key}
        del document["engine"]["metadata"]
    return document, metadata.threshold, facts


def _directory(folder: Path) -> tuple[dict[str, Any], Threshold, dict[str, str]]:
    try:
        from fsad_edge.training.model_directory import read_manifest
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    manifest = read_manifest(folder)
    encoder = manifest.encoder
    facts = {
        "name": manifest.name,
        "input": f"{encoder.height}x{encoder.width}",
        "encoder": f"{encoder.architecture} from {encoder.source}, "
        f"{manifest.training['epochs']} epochs"
        + ("" if manifest.training["synthetic_auroc"]["kept"] else ", not kept"),
        "weights": f"SHA-256 {encoder.sha256[:16]}… before fine-tuning",
        "shots": str(len(manifest.shots)),
        "memory bank": f"{manifest.bank_rows} rows",
    }
    document = {**dataclasses.asdict(manifest), "score": manifest.calibration["score"]}
    return document, manifest.threshold, facts
