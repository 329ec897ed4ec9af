"""The Open Inference Protocol of the service, tested with Triton's client."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge import Model
from fsad_edge.runtime.images import load_resized
from fsad_edge.serve.kserve_request import HEADER_LENGTH, read_infer_request
from fsad_edge.serve.problems import ProblemError
from tests.conftest import SIZE, Job, photograph
from tests.serving import Server, encoded, serving, wait_until

http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")

QUEUE = 4
SHAPE = [1, SIZE, SIZE, 3]
OUTPUTS = ("score", "anomaly_map")


@pytest.fixture(scope="module")
def model(job: Job) -> Iterator[Model]:
    with Model.load(job.file) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def images(job: Job) -> NDArray[np.uint8]:
    """A good part and a bad one at the model's size."""
    bad = encoded(photograph(np.random.default_rng(4), defect=True))
    return np.stack([load_resized(one, SIZE, SIZE) for one in (job.shots / "0.png", bad)])


@pytest.fixture(scope="module")
def server(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    part = Path(shutil.copy(job.file, tmp_path_factory.mktemp("kserve") / "part.onnx"))
    other = shutil.copy(part, part.with_name("o.onnx"))  # which the tests may teach
    with serving(part, f"other={other}", "--queue", str(QUEUE), "--max-mb", "1") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture
def plain(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def tensor(images: NDArray[np.uint8], binary: bool = True) -> Any:
    made = http.InferInput("image", list(images.shape), "UINT8")
    made.set_data_from_numpy(images, binary_data=binary)
    return made


@pytest.mark.parametrize("sent", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("asked", [True, False, None], ids=["binary", "json", "all"])
def test_tritons_client_gets_the_scores_of_the_runtime(
    client: Any, model: Model, images: NDArray[np.uint8], sent: bool, asked: bool | None
) -> None:
    outputs = None
    if asked is not None:
        outputs = [http.InferRequestedOutput(name, binary_data=asked) for name in OUTPUTS]
    result = client.infer("part", [tensor(images, sent)], outputs=outputs, request_id="7")
    scores, maps = (result.as_numpy(name) for name in OUTPUTS)
    assert scores.shape == (2, 1)
    assert scores.dtype == maps.dtype == np.float32
    for score, heat, image in zip(scores[:, 0], maps, images, strict=True):
        expected = model.score(image)
        assert score == pytest.approx(expected.score, rel=1e-6)
        np.testing.assert_allclose(heat, expected.patch_map, rtol=1e-5, atol=1e-6)
    answer = result.get_response()
    assert answer["id"] == "7"
    assert answer["model_name"] == "part"
    assert answer["parameters"]["threshold"] == model.threshold
    assert (scores[:, 0] > model.threshold).tolist() == [False, True]


@pytest.mark.parametrize("asked", [True, False], ids=["binary", "json"])
def test_the_decision_is_an_output(
    job: Job, careful_file: Path, foreign: Path, asked: bool
) -> None:
    names = ("score", "image_score", "good", "decision", "regions")
    outputs = [http.InferRequestedOutput(name, binary_data=asked) for name in names]
    paths = (job.shots / "0.png", job.scratched / "0.png", foreign)
    images = np.stack([load_resized(path, SIZE, SIZE) for path in paths])
    with (
        serving(careful_file) as server,
        http.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
    ):
        result = client.infer("part", [tensor(images)], outputs=outputs)
        config = client.get_model_config("part")
    found = {name: result.as_numpy(name)[:, 0].tolist() for name in names}
    assert [text if isinstance(text, str) else text.decode() for text in found["decision"]] == [
        "good", "anomaly", "not_judged",
    ]  # fmt: skip
    assert found["good"] == [True, False, False]
    with Model.load(careful_file) as model:
        expected = model.score_prepared(images)
    assert found["score"] == pytest.approx([one.score for one in expected], rel=1e-6)
    assert found["image_score"] == pytest.approx([one.image_score for one in expected], rel=1e-5)
    regions = [json.loads(text) for text in found["regions"]]
    assert [len(one) for one in regions] == [len(one.regions) for one in expected]
    assert regions[0] == []
    assert regions[1][0]["box"] == pytest.approx(expected[1].regions[0].box, abs=0.2)
    types = {output["name"]: output["data_type"] for output in config["output"]}
    assert (types["good"], types["decision"]) == ("TYPE_BOOL", "TYPE_STRING")


def test_one_output_can_be_requested(client: Any, images: NDArray[np.uint8]) -> None:
    result = client.infer(
        "other", [tensor(images)], outputs=[http.InferRequestedOutput("anomaly_map")]
    )
    assert result.as_numpy("score") is None
    assert len(result.as_numpy("anomaly_map")) == 2


def test_models_and_health(client: Any, model: Model, plain: httpx.Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("part")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("part")
    (version,) = told["versions"]
    assert version == plain.get("/v1/models/part").json()["version"]
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, *SHAPE[1:]]}]
    assert [(entry["name"], entry["shape"]) for entry in told["outputs"]] == [
        ("score", [-1, 1]),
        ("anomaly_map", [-1, -1, -1]),
        ("image_score", [-1, 1]),
        ("good", [-1, 1]),
        ("decision", [-1, 1]),
        ("regions", [-1, 1]),
    ]
    assert client.get_model_metadata("part", version) == told
    assert client.is_model_ready("part", version)
    config = client.get_model_config("part", version)
    assert config["max_batch_size"] == QUEUE
    assert config["input"][0]["dims"] == SHAPE[1:]
    threshold = config["parameters"][f"threshold_{version}"]["string_value"]
    assert float(threshold) == model.threshold


def test_another_version_is_not_found(client: Any, images: NDArray[np.uint8]) -> None:
    (version,) = client.get_model_metadata("part")["versions"]
    assert client.infer("part", [tensor(images)], model_version=version).as_numpy("score").any()
    for name, other, words in (("part", "1", "only version"), ("nobody", "", "no model")):
        with pytest.raises(http.InferenceServerException, match=words) as raised:
            client.infer(name, [tensor(images)], model_version=other)
        assert raised.value.status() == "404"
        assert not client.is_model_ready(name, other)


def test_results_are_recorded_like_others(
    client: Any, plain: httpx.Client, images: NDArray[np.uint8]
) -> None:
    before = plain.get("/v1/recent").json()["last"]
    scores = client.infer("other", [tensor(images)], request_id="line 3").as_numpy("score")
    results = plain.get(f"/v1/recent?after={before}").json()["results"]
    assert [result["score"] for result in results] == pytest.approx(scores[:, 0].tolist())
    assert [result["decision"] for result in results] == ["good", "anomaly"]
    for result in results:
        assert (result["model"], result["name"], result["width"]) == ("other", "line 3", SIZE)
        assert plain.get(f"/v1/results/{result['id']}/overlay").status_code == 200
    metrics = plain.get("/metrics").text
    assert 'fsad_edge_images_total{decision="anomaly",model="other",source="http"}' in metrics
    assert 'route="/v2/models/{name}/infer",status="200"' in metrics


def test_learned_images_count(
    client: Any, plain: httpx.Client, model: Model, images: NDArray[np.uint8]
) -> None:
    taught = encoded(photograph(np.random.default_rng(9)))
    path = "/v1/models/other/normals"
    learned = plain.post(f"{path}?who=anna&force=true", content=taught)
    assert learned.status_code == 201, learned.text
    learned_threshold = plain.get("/v1/models/other").json()["threshold"]
    told = client.infer("other", [tensor(images)])
    assert told.get_response()["parameters"]["threshold"] == learned_threshold
    config = client.get_model_config("other")
    (version,) = client.get_model_metadata("other")["versions"]
    threshold = config["parameters"][f"threshold_{version}"]["string_value"]
    assert float(threshold) == learned_threshold
    # The learned image is near the memory bank now.
    image = load_resized(taught, SIZE, SIZE)[None]
    score = client.infer("other", [tensor(image)]).as_numpy("score")[0, 0]
    assert score < 0.9 * model.score(image[0]).score
    assert plain.delete(f"{path}/{learned.json()['id']}?who=anna").status_code == 200


WHOLE = 3 * SIZE**2


def values(count: int) -> bytes:
    """As many pixel values, which show something."""
    return (bytes(range(256)) * (count // 256 + 1))[:count]


def request(**changes: Any) -> dict[str, Any]:
    """A JSON request for an image, with changes to its input; None removes a member."""
    members = {"name": "image", "datatype": "UINT8", "shape": SHAPE, "data": list(values(WHOLE))}
    members.update(changes)
    return {"inputs": [{key: value for key, value in members.items() if value is not None}]}


def binary(claimed: int, sent: int, shape: list[int] = SHAPE) -> tuple[bytes, dict[str, str]]:
    """A body with a binary tensor, and the header with the length of its JSON."""
    head = json.dumps(request(data=None, shape=shape, parameters={"binary_data_size": claimed}))
    return head.encode() + values(sent), {HEADER_LENGTH: str(len(head))}


BROKEN: list[tuple[Any, int]] = [
    (b"", 400),
    (b"\xff\xfe", 400),
    (b"[]", 400),
    (b"{", 400),
    (b'{"inputs": NaN}', 400),
    (b"[" * 50_000, 400),
    (b'{"inputs": ' + b"9" * 5000 + b"}", 400),
    ({}, 400),
    ({"inputs": []}, 400),
    ({"inputs": ["image"]}, 400),
    ({"inputs": request()["inputs"] * 2}, 400),
    (request(name="bank"), 400),
    (request(datatype="FP32"), 400),
    (request(datatype=None), 400),
    (request(shape=None), 400),
    (request(shape=SHAPE[1:]), 400),
    (request(shape=[1, SIZE, SIZE, 1]), 400),
    (request(shape=[True, SIZE, SIZE, 3]), 400),
    (request(shape=[0, SIZE, SIZE, 3], data=[]), 400),
    (request(shape=[-1, SIZE, SIZE, 3]), 400),
    (request(shape=[1 << 62, SIZE, SIZE, 3]), 413),
    (request(shape=[QUEUE + 1, SIZE, SIZE, 3]), 413),
    (request(shape=[2, SIZE, SIZE, 3]), 400),
    (request(data=None), 400),
    (request(data="abc"), 400),
    (request(data=[256] * WHOLE), 400),
    (request(data=[-1] * WHOLE), 400),
    (request(data=[0.5] * WHOLE), 400),
    (request(data=[None] * WHOLE), 400),
    (request(data=["a" * 200_000, *[9] * (WHOLE - 1)]), 400),
    (request(data=[[9], 9]), 400),
    (request(data=[9] * (WHOLE - 1)), 400),
    (request(parameters={"shared_memory_region": "x"}, data=None), 400),
    (request(parameters=3), 400),
    ({**request(), "id": 3}, 400),
    ({**request(), "id": "i" * 1000}, 400),
    ({**request(), "outputs": "score"}, 400),
    ({**request(), "outputs": [{"name": "patches"}]}, 400),
    ({**request(), "outputs": [{"name": ["score"]}]}, 400),
    ({**request(), "outputs": [{"name": "score"}] * 2}, 400),
    ({**request(), "outputs": [{"name": "score", "parameters": {"classification": 1}}]}, 400),
    (binary(WHOLE, WHOLE - 1), 400),
    (binary(WHOLE, WHOLE + 1), 400),
    (binary(WHOLE - 1, WHOLE - 1), 400),
    (binary(1 << 60, WHOLE), 400),
    ((json.dumps(request()).encode(), {HEADER_LENGTH: "x"}), 400),
    ((json.dumps(request()).encode(), {HEADER_LENGTH: "-1"}), 400),
    ((json.dumps(request()).encode(), {HEADER_LENGTH: "999999999"}), 400),
    ((json.dumps(request()).encode(), {HEADER_LENGTH: "10"}), 400),
    ((json.dumps(request()).encode() + b"\0", {HEADER_LENGTH: "0"}), 400),
    ((json.dumps(request()).encode(), {"Content-Encoding": "gzip"}), 415),
    (b" " * 400_000, 413),
    (b" " * (2 << 20), 413),
]


def test_broken_requests_are_refused(plain: httpx.Client) -> None:
    for place, (asked, status) in enumerate(BROKEN):
        body, headers = asked if isinstance(asked, tuple) else (asked, {})
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        answer = plain.post("/v2/models/part/infer", content=body, headers=headers)
        assert answer.status_code == status, (place, answer.text)
        assert answer.json()["error"] == answer.json()["detail"]
    for path in ("/v2/nothing", "/v2/models/nobody", "/v2/models/part/versions/1/config"):
        answer = plain.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]
    blank = plain.post("/v2/models/part/infer", json=request(data=[9] * WHOLE))
    assert blank.json()["outputs"][-2]["data"] == ["not_judged"]
    well = plain.post("/v2/models/part/infer", json=request())
    assert well.status_code == 200, well.text
    assert [output["name"] for output in well.json()["outputs"]] == [
        "score", "anomaly_map", "image_score", "good", "decision", "regions",
    ]  # fmt: skip


def test_compressed_requests_are_refused(client: Any, images: NDArray[np.uint8]) -> None:
    with pytest.raises(http.InferenceServerException, match="uncompressed"):
        client.infer("part", [tensor(images)], request_compression_algorithm="gzip")


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "inputs", "outputs", "parameters"), trees)
    ),
    st.binary(max_size=8),
    st.none() | st.sampled_from(["0", "3", "٣", "+1", "1e3", "9" * 30]),
)
def test_any_broken_request_is_a_client_error(
    model: Model, document: dict[str, Any], tail: bytes, header: str | None
) -> None:
    body = json.dumps(document).encode()
    for length in (header, str(len(body))):
        with pytest.raises(ProblemError) as raised:
            read_infer_request(body + tail, length, model.metadata, QUEUE)
        assert 400 <= raised.value.status < 500


def test_a_flood_gets_429(server: Server, images: NDArray[np.uint8]) -> None:
    body, headers = binary(QUEUE * WHOLE, QUEUE * WHOLE, [QUEUE, *SHAPE[1:]])

    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            asked = [
                client.post("/v2/models/part/infer", content=body, headers=headers)
                for _ in range(40)
            ]
            return await asyncio.gather(*asked)

    answers = asyncio.run(flood())
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert "waiting already" in answer.json()["error"]
    with server.client() as client:
        assert client.get("/v1/status").json()["queue"]["length"] == 0


def test_requests_need_the_token(job: Job, tmp_path: Path, images: NDArray[np.uint8]) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    with (
        serving(job.file, "--token-file", token) as server,
        http.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
    ):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert not client.is_model_ready("part")
        with pytest.raises(http.InferenceServerException, match="send the service's token"):
            client.infer("part", [tensor(images)])
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        assert client.is_model_ready("part", headers=headers)
        assert client.infer("part", [tensor(images)], headers=headers).as_numpy("score").all()


def test_a_stopping_service_is_not_ready(job: Job) -> None:
    with serving(job.file) as server, server.client() as client:
        assert client.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "finishing" in server.log)
        answer = client.get("/v2/health/ready")
        assert answer.status_code == 400
        assert "shutting down" in answer.json()["error"]
