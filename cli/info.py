"""``fsad-edge info``: what a model file, an engine or a model directory says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import counted, out, print_facts, print_json
from fsad_edge.cli.learned_model import taught_beside
from fsad_edge.cli.shared_options import Json
from fsad_edge.deploy.batch_sizes import batch_words
from fsad_edge.runtime.directories import restore_directory
from fsad_edge.runtime.encoder_names import encoder_words
from fsad_edge.runtime.files import is_folder
from fsad_edge.runtime.where_fast import where_fast

if TYPE_CHECKING:
    from fsad_edge.runtime.engine_file import EngineHeader
    from fsad_edge.runtime.locator import Locator
    from fsad_edge.runtime.metadata import ByPlace, Judgement, Metadata, ShotFinding, Threshold

#: What is said of features that were trained.
FINE_TUNED = "its features fine-tuned contrastively for this part"

#: What is said of a file or directory whose seal fits.
NO_DAMAGE = "none: the seal fits"


def info(
    file: Annotated[
        Path, typer.Argument(help="File of export, engine of build, or directory of finetune.")
    ],
    json_: Json = False,
) -> None:
    """Print where a model came from and how it decides."""
    restore_directory(file)
    document, facts = _directory(file) if is_folder(file) else _file(file)
    if json_:
        print_json(document)
        return
    out.print(str(file))
    print_facts(facts)


def _file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    read = _read_file(path)
    metadata, graph, engine = read.metadata, read.graph, read.engine
    backbone = metadata.backbone
    document = {**metadata.summary(), "graph": graph, "sealed": read.unsealed is None}
    document["runs_fast"] = where_fast(metadata.precision)
    facts = {
        "name": metadata.name,
        "input": f"uint8 {metadata.height}x{metadata.width} RGB; {metadata.resize}",
        "encoder": f"{encoder_words(backbone.source)}, "
        + (FINE_TUNED if backbone.fine_tuned else f"{backbone.epochs} epochs"),
        "weights": f"SHA-256 {backbone.sha256[:16]}… before fine-tuning",
        "shots": _shots(metadata.shots.count, metadata.shots.left_out),
        "memory bank": f"{metadata.bank_rows} rows",
        **_part(metadata.locator),
        **_positions(metadata.bank_rotations, metadata.bank_flip, metadata.locator),
        **_places(metadata.by_place),
        "precision": metadata.precision,
        "runs fast": where_fast(metadata.precision),
        "graph": f"{graph[:16]}…; models of one graph share a session in  fsad-edge serve",
        "golden images": str(len(metadata.golden)),
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
    }
    facts["damage"] = read.unsealed or NO_DAMAGE
    if engine is not None:
        facts["engine"] = (
            f"{engine.builder}, {batch_words(engine.options.batch)}, from "
            f"{engine.source_name} (SHA-256 {engine.source_sha256[:16]}…)"
        )
        del facts["runs fast"], document["runs_fast"]  # where that engine runs
        document["engine"] = _engine_document(engine)
    facts.update(_findings(metadata.shots.findings))
    facts.update(_decision(metadata.score, metadata.threshold))
    if metadata.rejected:
        facts["called bad"] = f"{counted(len(metadata.rejected), 'image')} before the export"
    facts["not judged"] = _bounds(metadata.judgement)
    facts.update(_zones(metadata))
    if (taught := taught_beside(path, metadata)) is not None:
        document["taught"] = {**vars(taught.summary), "folder": str(taught.folder)}
        facts["taught here"] = (
            f"{taught.summary.words}, in {taught.folder};  fsad-edge threshold  and  fsad-edge "
            "bank list  show what that changed"
        )
        if taught.summary.zones:
            document["taught"]["share"] = taught.share
            facts["looked at"] = f"{taught.share:.0%} of the part;  fsad-edge region  shows where"
            if taught.shots_threshold not in {None, metadata.threshold.value}:
                facts["looked at"] += (
                    f"; the zones move the threshold above to {taught.shots_threshold:.4g}"
                )
    return document, {**facts, **_origin(metadata.created, metadata.versions)}


@dataclass(frozen=True)
class _File:
    """The metadata, the key of the graph, the header of an engine, and whether there is a seal."""

    metadata: Metadata
    graph: str
    engine: EngineHeader | None
    unsealed: str | None


def _read_file(path: Path) -> _File:
    from fsad_edge.runtime.engine_file import is_engine, read_engine
    from fsad_edge.runtime.files import is_file, read_bytes
    from fsad_edge.runtime.metadata import Metadata
    from fsad_edge.runtime.model import Model

    # An engine is only read and not loaded, so that a machine without its GPU can describe it.
    if is_file(path) and is_engine(data := read_bytes(path)):
        header = read_engine(data, str(path)).header
        metadata = Metadata.from_json(header.metadata, str(path))
        return _File(metadata, header.graph, header, None)
    with Model.load(path, "cpu", golden=False) as model:
        return _File(model.metadata, model.graph, None, model.unsealed)


def _engine_document(engine: EngineHeader) -> dict[str, Any]:
    from fsad_edge.runtime.documents import to_document

    document: dict[str, Any] = {**to_document(engine), "key": engine.key}
    del document["metadata"]
    return document


def _directory(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from fsad_edge.pipeline.model_directory import check_directory, read_manifest, without_hash
    from fsad_edge.runtime.documents import to_document

    manifest = read_manifest(folder)
    check_directory(folder, manifest)
    encoder, training, score = manifest.encoder, manifest.training, manifest.calibration.score
    dropped = training.settings.epochs and not training.weights_kept
    facts = {
        "name": manifest.name,
        "input": f"{encoder.height}x{encoder.width}",
        "encoder": f"{encoder_words(encoder.source)}, "
        + (
            FINE_TUNED
            if manifest.calibration.learned
            else f"{training.settings.epochs} epochs{', not kept' if dropped else ''}"
        ),
        "weights": f"SHA-256 {encoder.sha256[:16]}… before fine-tuning",
        "shots": _shots(len(manifest.shots), len(manifest.left_out)),
        **_findings(manifest.findings),
        "memory bank": f"{manifest.bank_rows} rows",
        **_part(manifest.calibration.locator),
        **_positions(
            manifest.calibration.bank_rotations,
            manifest.calibration.views.flip,
            manifest.calibration.locator,
        ),
        **_places(manifest.calibration.by_place),
        **_decision(score, manifest.threshold),
        "damage": NO_DAMAGE if manifest.sealed else without_hash(folder),
        **_origin(manifest.created, manifest.versions),
    }
    document = to_document(manifest)
    # A matrix, which is in the reference model as well.
    document["calibration"]["learned"] = bool(manifest.calibration.learned)
    return {**document, "score": score, "sealed": manifest.sealed}, facts


def _shots(count: int, left_out: int) -> str:
    return f"{count}, and {left_out} left out that show the same" if left_out else str(count)


def _places(by_place: ByPlace | None) -> dict[str, str]:
    """Whether images are compared with the shots place by place; nothing of earlier versions."""
    from fsad_edge.calibration.placing import place_facts

    return {} if by_place is None else place_facts(by_place)


def _part(locator: Locator | None) -> dict[str, str]:
    """Whether the part is looked for in a photograph."""
    if locator is None:
        return {"the part": "is not looked for: the model looks at the whole photograph"}
    turned = "turned upright and " if locator.turned else ""
    return {
        "the part": f"is found on its ground, {turned}cropped to {locator.width:.0%} x "
        f"{locator.height:.0%} of the photograph's longer side; where it is not found, the image "
        "is not judged"
    }


def _positions(rotations: int, flip: bool, locator: Locator | None) -> dict[str, str]:
    """What becomes of a part that does not lie as the shots do."""
    good, rejected = "count as good", "are rejected where they look different"
    upright = locator is not None and locator.turned
    return {
        "turned parts": good if rotations > 1 or upright else rejected,
        "mirrored parts": good if flip else rejected,
    }


def _findings(findings: Sequence[ShotFinding]) -> dict[str, str]:
    """What was found about the shots; an empty name for all but the first: they are one list."""
    texts = [finding.text for finding in findings]
    return {"of the shots" if not place else " " * place: text for place, text in enumerate(texts)}


def _zones(metadata: Metadata) -> dict[str, str]:
    """The zones that the file holds, and how much of the part counts under them."""
    from fsad_edge.learning.zones_in_effect import shares_of

    zones = metadata.zones
    if not zones:
        return {}
    share, _ = shares_of(metadata, [])
    return {
        "zones": f"{counted(len(zones), 'zone')} before the export; {share:.0%} of the part "
        "counts, and the threshold is that of this share"
    }


def _bounds(judgement: Judgement) -> str:
    """What is not judged."""
    unlike = judgement.unlikeness
    bound = "" if unlike is None else f"what is unlike the shots (above {unlike:.3g}), "
    words = f"{bound}black, white, flat, overexposed, blurred or noise"
    if judgement.shape is not None:
        low, high = judgement.shape
        words += f"; wider than {high:.2f} or narrower than {low:.2f} times the height"
    return f"{words}; smaller than {judgement.side:.0f} x {judgement.side:.0f} pixels"


def _decision(score: str, threshold: Threshold) -> dict[str, str]:
    """How a model decides."""
    rate = f"{100 * threshold.false_alarm_rate:.2g} % of good parts may be rejected"
    purpose = rate if threshold.rate_promised else f"{rate}: asked for, not promised"
    if threshold.set_by_hand:
        purpose = f"set by hand; before that, {rate}"
    return {
        "threshold": f"{threshold.value:.4g} on the {score} score, {purpose}",
        "from": threshold.method,
        "reliability": threshold.reliability,
    }


def _origin(created: str, versions: dict[str, str]) -> dict[str, str]:
    """When a model was made, and with what."""
    return {"made": f"{created} with {', '.join(map(' '.join, versions.items()))}"}
