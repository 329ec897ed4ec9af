"""NVIDIA's own parser and builder judge what is exported, and build engines without a GPU.

TensorRT for RTX runs here in an environment of its own. Loading an engine needs an RTX card:
tests/hardware does that.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from fsad_edge.errors import FsadEdgeError
from fsad_edge.graph.fp16 import to_fp16
from fsad_edge.graph.tensorrt_operators import find_problems
from fsad_edge.options import Precision, ScoreKind, Target
from fsad_edge.runtime.backends.cuda import find_gpu
from fsad_edge.runtime.engine_file import RTX_GPUS, Flavour, read_engine
from fsad_edge.runtime.locator import OUTLINE, Locator
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.scoring.bundled import FILES, bundled_encoder
from fsad_edge.scoring.onnx_graph import Graph
from fsad_edge.scoring.quantize import quantised_names, quantize
from fsad_edge.scoring.scoring_graph import build_scoring_graph
from tests.conftest import Job
from tests.tensorrt_rtx import Rtx, install
from tests.test_tensorrt_operators import BAD, TOLD

pytestmark = pytest.mark.slow

#: The side of ``bundled_file``.
SIDE = 96


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory) -> Rtx:
    return install(tmp_path_factory.mktemp("rtx"))


def has_gpu() -> bool:
    try:
        find_gpu()
    except FsadEdgeError:
        return False
    return True


def a_locator() -> Locator:
    """A part in the middle, so that the cells at the edge do not count."""
    middle = bytearray(OUTLINE * OUTLINE // 8)
    for row in range(OUTLINE // 4, 3 * OUTLINE // 4):
        start = row * OUTLINE // 8
        middle[start + OUTLINE // 32 : start + 3 * OUTLINE // 32] = b"\xff" * (OUTLINE // 16)
    whitening = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    bounds = (0.1, 0.9)
    return Locator(
        whitening, 1.0, bounds, bounds, bounds, 0.5, 0.5, (0.0, 0.0), False, 0.5, b"", bytes(middle)
    )


def graph_of(name: str, located: bool, side: int = SIDE) -> Graph:
    """The scoring graph of a bundled encoder, as ``export`` puts it together."""
    encoder = bundled_encoder(name)
    assert encoder is not None
    score = ScoreKind.IMAGE if encoder.full_depth else ScoreKind.PATCH
    return build_scoring_graph(encoder, side, side, score, a_locator() if located else None, 1000)


def in_precision(graph: Graph, precision: Precision, target: Target) -> bytes:
    if precision == Precision.FP16:
        half: bytes = to_fp16(onnx.load_from_string(graph.to_bytes())).SerializeToString()
        return half
    if precision == Precision.INT8:
        ranges = dict.fromkeys(quantised_names(graph, target), (-3.0, 3.0))
        return quantize(graph, ranges, [0.5] * 3, [0.2] * 3, target).to_bytes()
    return graph.to_bytes()


def test_every_encoder_is_built_in_every_precision(
    rtx: Rtx, bundled_file: Path, tmp_path: Path
) -> None:
    files = []
    for name in FILES:
        for located in (False, True):
            graph = graph_of(name, located)
            # The second bank, of rejected patches, is an input like the first.
            assert {"bank", "rejected"} < {value.name for value in graph.inputs}
            assert set(REFERENCE_INPUTS) < {value.name for value in graph.inputs}
            for precision in Precision:
                file = tmp_path / f"{name} {located} {precision}.onnx"
                file.write_bytes(in_precision(graph, precision, Target.TENSORRT))
                files.append(file)
    said = rtx.judge(bundled_file, files, batch=(1, 4, 8))
    assert len(said) == len(FILES) * 2 * len(Precision)
    assert {complaint for complaint, _ in said.values()} == {None}
    assert all(size > 100_000 for _, size in said.values())
    assert not any(find_problems(onnx.load(file)) for file in files)


def test_the_parser_takes_an_encoder_that_runs_over_tiles(
    rtx: Rtx, bundled_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiles.onnx"
    file.write_bytes(graph_of("fsad_edge", located=False, side=1152).to_bytes())
    [(complaint, _)] = rtx.judge(bundled_file, [file], parse_only=True).values()
    assert complaint is None


def test_int8_for_a_cpu_is_refused_where_the_list_of_operators_says_so(
    rtx: Rtx, bundled_file: Path, tmp_path: Path
) -> None:
    files = []
    for name in FILES:
        files.append(tmp_path / f"{name}.onnx")
        files[-1].write_bytes(in_precision(graph_of(name, False), Precision.INT8, Target.CPU))
    said = rtx.judge(bundled_file, files)
    for file in files:
        complaint, _ = said[file.name]
        first = find_problems(onnx.load(file))[0]
        assert complaint is not None
        # Operator and node come first in both sentences.
        assert first.split(" of ")[0] == complaint.split(":")[0]


def test_the_list_of_operators_holds_what_the_parser_cannot_tell(
    rtx: Rtx, bundled_file: Path, tmp_path: Path
) -> None:
    """A line that the parser could tell goes; what it tells is not missed."""
    files = {name: tmp_path / f"{name}.onnx" for name in (*BAD, *TOLD)}
    for name, file in files.items():
        make = TOLD[name] if name in TOLD else BAD[name][0]
        file.write_bytes(make().SerializeToString())
    said = rtx.judge(bundled_file, list(files.values()), parse_only=True)
    refused = {name for name, file in files.items() if said[file.name][0] is not None}
    # Cast alone takes bytes, and operators that no exported graph may hold.
    assert refused == {*TOLD, "bytes", "operator"}
    assert not any(find_problems(onnx.load(files[name])) for name in TOLD)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here, and this is about machines without one")
def test_an_engine_is_built_without_a_gpu_and_says_what_runs_instead(
    rtx: Rtx, bundled_file: Path, job: Job, tmp_path: Path
) -> None:
    file = Path(shutil.copy(bundled_file, tmp_path / "part.onnx"))
    done = rtx.command("build", file, "--batch", "1,4,8")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "TensorRT for RTX 1.7" in told
    assert f"for GPUs of compute capability {RTX_GPUS}" in told
    assert "built ahead of time without a GPU, because there is no NVIDIA driver here" in told
    # What is said next runs here, and where the engine runs is said.
    assert f"runs on a PC with a GPU of compute capability {RTX_GPUS}" in told
    assert f"fsad-edge score {file} IMAGE" in told
    assert "engine: " in done.stderr
    assert "(TensorRT for RTX)" in done.stderr
    header = read_engine(file.with_suffix(".engine").read_bytes(), "").header
    assert (header.flavour, header.gpu, header.options.batch) == (Flavour.RTX, None, (1, 4, 8))
    assert header.options.gpus == ()
    assert not file.with_suffix(".timing").exists()
    again = json.loads(rtx.command("build", file, "--batch", "1,4,8", "--json").stdout)
    assert not again["built"]
    assert (again["golden_images"], again["gpu"]) == (0, None)
    assert again["key"] == header.key

    info = rtx.command("info", file.with_suffix(".engine"))
    assert "TensorRT for RTX 1.7" in " ".join(info.stdout.split())
    assert "tensorrt-rtx" in json.loads(rtx.command("doctor", "--json").stdout)["found"]
    scored = rtx.command("score", file.with_suffix(".engine"), job.shots)
    assert scored.returncode == 2
    assert "its ONNX file part.onnx can, with --provider cpu." in " ".join(scored.stderr.split())
    assert "Traceback" not in scored.stderr
    # A folder is served by what runs here.
    make = "from fsad_edge.serve.app import create_app; app = create_app(sys.argv[1])"
    served = rtx.run("-c", f"import sys; {make}; print(app.service.models.loaded)", file.parent)
    assert served.returncode == 0, served.stderr
    assert f"{file} is served instead of {file.with_suffix('.engine')}" in served.stderr
    strict = rtx.command("serve", file.parent, "--strict", "--port", "0")
    assert strict.returncode == 2
    assert "1 of 1 model files cannot be served" in " ".join(strict.stderr.split())
    assert "its ONNX file part.onnx can, with --provider cpu" in " ".join(strict.stderr.split())
    assert "tensorrt" not in json.loads(rtx.command("doctor", "--json").stdout)["missing"]


def test_a_card_that_does_not_fit_is_refused_before_an_export(rtx: Rtx, job: Job) -> None:
    written = job.part.parent / "unfit.onnx"
    done = rtx.command("export", job.part, "-o", written, "--trt", "--gpu", "9.0")
    assert done.returncode == 2
    assert "--gpu takes 8.0" in " ".join(done.stderr.split())
    assert not written.exists()


def test_cards_are_named_and_kept_when_the_engine_is_built_again(
    rtx: Rtx, bundled_file: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(bundled_file, tmp_path / "part.onnx"))
    made = rtx.command("build", file, "--gpu", "8.6,12.0", "--json")
    assert made.returncode == 0, made.stderr
    first = json.loads(made.stdout)
    assert first["options"]["gpus"] == ["8.6", "12.0"]
    again = json.loads(rtx.command("build", file.with_suffix(".engine"), "--json").stdout)
    assert (again["built"], again["key"]) == (True, first["key"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--gpu", "9.0"),
            "--gpu takes 8.0, 8.6, 8.9, 12.0, 12.1 (without --gpu an engine is for 8.0, 8.6, 8.9, "
            "12.0 and later); on that GPU score the ONNX file",
        ),
        (("--gpu", "7.5"), "its matrix products in fp32 are missing there"),
        (("--gpu", "Ada"), "give compute capabilities"),
        (("--version-compatible",), "not available in TensorRT for RTX"),
        (("--hardware-compatible",), "changes nothing in TensorRT for RTX"),
        (("--timing-cache", "x"), "measures nothing"),
    ],
)
def test_what_it_cannot_do_is_refused(
    rtx: Rtx, bundled_file: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = rtx.command("build", bundled_file, "-o", tmp_path / "part.engine", *options)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert not (tmp_path / "part.engine").exists()
