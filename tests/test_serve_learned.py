"""What was learned, in services that run beside each other and beside other commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from fsad_edge.runtime.onnx_file import replace
from tests.conftest import Cli, Job, photograph
from tests.serving import assert_problem, encoded, serving, wait_until

SECONDS = 6  # within which a service has noticed


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


def bent(seed: int) -> bytes:
    """A good part with a groove that no shot has."""
    image = photograph(np.random.default_rng(seed))
    image.paste((96, 99, 106), (8, 78, 88, 86))
    return encoded(image, "PNG")


def learned(client: httpx.Client) -> tuple[int, float]:
    model = client.get("/v1/models/part").json()
    return model["learned"], model["threshold"]


def test_two_services_and_the_commands_share_what_was_learned(
    cli: Cli, job: Job, file: Path, tmp_path: Path
) -> None:
    image, path = tmp_path / "new.png", "/v1/models/part/normals?who=anna&force=true"
    image.write_bytes(bent(1))
    assert cli("bank", "add", file, image, "--force").code == 0
    (tmp_path / "next").mkdir()
    (tmp_path / "next/part.onnx").symlink_to(file)
    with (
        serving(file) as old, serving(tmp_path / "next/part.onnx") as new,
        old.client() as one, new.client() as two,
    ):  # fmt: skip
        assert learned(one) == learned(two)
        assert learned(one)[0] == 1
        assert one.post(path, content=bent(2)).status_code == 201
        assert two.post(path, content=bent(3)).json()["id"] == 3
        wait_until(lambda: learned(one) == learned(two) and learned(one)[0] == 3, SECONDS)
        image.write_bytes(bent(4))
        assert cli("bank", "add", file, image, "--force").code == 0
        wait_until(lambda: learned(one)[0] == learned(two)[0] == 4, SECONDS)
        assert len(cli("bank", "list", file, "--json").json["entries"]) == 4
        assert cli("score", file, image, "--json").json["learned"] == 4
        assert one.delete("/v1/models/part/normals/4?who=otto").status_code == 200
        wait_until(lambda: learned(one) == learned(two) and learned(one)[0] == 3, SECONDS)
        # A file that holds all of it replaces the one that learned it.
        exported = tmp_path / "exported.onnx"
        assert cli("bank", "export", file, "-o", exported).code == 0
        exported.replace(file)
        wait_until(lambda: learned(one)[0] == 0, SECONDS)
        assert "do not count" not in old.log
        assert one.get("/v1/models/part").json()["error"] is None
    assert "Traceback" not in old.log + new.log


def test_a_file_that_would_lose_an_example_is_refused_until_that_is_undone(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    """The new file is reached by a link, so that the folder of the old one does not stand in."""
    old, link, good = tmp_path / "old/cell.onnx", tmp_path / "part.onnx", tmp_path / "good.png"
    old.parent.mkdir()
    shutil.copy(job.file, old)
    link.symlink_to(old)
    good.write_bytes(encoded(photograph(np.random.default_rng(45)), "PNG"))
    bent_image = tmp_path / "bent.png"
    bent_image.write_bytes(bent(1))
    assert cli("bank", "add", old, good, bent_image, "--force").code == 0
    new = tmp_path / "new.onnx"
    new.write_bytes(replace(old.read_bytes(), {}, {"note": "another content"}))
    with serving(link) as server, server.client() as client:
        version = client.get("/v1/models/part").json()["version"]
        (tmp_path / "link").symlink_to(new)
        (tmp_path / "link").replace(link)
        wait_until(lambda: client.get("/v1/models/part").json()["error"] is not None, SECONDS)
        state = client.get("/v1/models/part").json()
        assert "would decide 1 of 2 examples wrongly" in state["error"]
        assert "bent.png" in state["error"]
        assert (state["version"], state["learned"]) == (version, 2)
        assert client.delete("/v1/models/part/normals/2?who=otto").status_code == 200
        wait_until(lambda: client.get("/v1/models/part").json()["version"] != version, 40)
        assert client.get("/v1/models/part").json()["error"] is None
        told = "1 images that the file before was taught do not count with this one"
        wait_until(lambda: told in server.log, SECONDS)
    assert "Traceback" not in server.log


def test_a_start_tells_which_examples_an_update_has_turned(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    image = tmp_path / "new.png"
    image.write_bytes(bent(1))
    assert cli("bank", "add", file, image, "--force").code == 0
    decisions = file.with_suffix(".learned") / "decisions.json"
    decisions.write_text(decisions.read_text().replace('"good"', '"anomaly"'))
    with serving(file) as server:
        wait_until(lambda: "1 of 1 examples have changed sides" in server.log, SECONDS)
        assert "good example 1 (own/new.png" in server.log


def test_what_was_learned_and_is_taken_away_is_told_until_it_is_back(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    path = "/v1/models/part/normals?who=anna&force=true"

    def error() -> str:
        return str(client.get("/v1/models/part").json()["error"])

    with serving(file) as server, server.client() as client:
        assert client.post(path, content=bent(1)).json()["name"] is None
        listed = cli("bank", "list", file).out
        assert f"without a name, stored as {tmp_path}/part.learned/images/0001.png" in listed
        (tmp_path / "part.learned").rename(tmp_path / "away")
        wait_until(lambda: "1 images that were learned" in error(), SECONDS)
        assert learned(client)[0] == 0
        assert "WARNING" in next(line for line in server.log.splitlines() if "are gone" in line)
        (tmp_path / "away").rename(tmp_path / "part.learned")
        wait_until(lambda: learned(client)[0] == 1 and error() == "None", SECONDS)
        assert server.log.count("are gone") == 1


def test_an_image_that_is_known_is_asked_about(file: Path, job: Job) -> None:
    path, image = "/v1/models/part/normals?who=anna", encoded(photograph(np.random.default_rng(30)))
    with serving(file) as server, server.client() as client:
        files = {"file": ("good one.jpg", image, "image/jpeg")}
        assert client.post(path, files=files).json()["name"] == "good one.jpg"
        refused = assert_problem(client.post(path, content=image), 409)
        assert (refused["force"], "already, as 1 (good one.jpg" in str(refused["detail"])) == (
            True, True,
        )  # fmt: skip
        shot = assert_problem(client.post(path, content=(job.shots / "0.png").read_bytes()), 409)
        assert "one of the shots" in str(shot["detail"])
        assert learned(client)[0] == 1
        assert client.post(f"{path}&force=true", content=image).status_code == 201
