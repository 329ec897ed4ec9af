"""What was learned, in services that run beside each other and beside other commands."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from fsad_edge.learning.decided import Decided
from fsad_edge.options import Decision
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.onnx_file import replace
from tests.commands import all_files
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
    said = read_document(Decided, decisions.read_bytes(), "", "")
    turned = dataclasses.replace(said, decisions={"1": Decision.ANOMALY})
    decisions.write_text(write_document(turned.sealed(sha256(file.read_bytes()))))
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


def other_content(file: Path) -> None:
    """Replace a model file by another one that decides the same."""
    new = file.with_name("new")
    new.write_bytes(replace(file.read_bytes(), {}, {"note": "another content"}))
    new.replace(file)


def test_a_new_file_beside_an_older_folder_is_served_alike_before_and_after_a_restart(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    image = tmp_path / "new.png"
    image.write_bytes(bent(1))
    assert cli("bank", "add", file, image, "--force").code == 0
    assert cli("threshold", file, "--ratio", "1.2", "--force").code == 0
    folder = file.with_suffix(".learned")
    before = all_files(folder)
    told = "learned with another model file"

    def check(client: httpx.Client) -> dict[str, object]:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        model: dict[str, object] = client.get("/v1/models/part").json()
        assert model["threshold"] == model["file_threshold"]
        assert model["learned"] == 0
        assert told in str(model["learning_error"])
        assert f"mv {folder} {tmp_path}/part-before.learned" in str(model["learning_error"])
        path = "/v1/models/part/normals?who=anna&force=true"
        refused = assert_problem(client.post(path, content=bent(2)), 409)
        assert "cannot be taught" in str(refused["detail"])
        assert client.post("/v1/score", content=bent(2)).status_code == 200
        return {name: model[name] for name in ("version", "threshold", "error", "learning_error")}

    with serving(file) as server, server.client() as client:
        version = client.get("/v1/models/part").json()["version"]
        other_content(file)
        wait_until(lambda: client.get("/v1/models/part").json()["version"] != version, SECONDS)
        running = check(client)
        wait_until(lambda: told in server.log, SECONDS)
        assert "1 of 1 examples wrongly that the model before decides rightly" in server.log
    with serving(file) as server, server.client() as client:
        assert check(client) == running
        assert told in server.log
        for command in (("score", file, image), ("bank", "list", file), ("info", file)):
            assert told in cli(*command).err
        assert cli("bank", "add", file, image, "--force").code == 2
        assert all_files(folder) == before
        # Somebody decides: the folder is set aside, and its images are taught to the new file.
        aside = folder.rename(tmp_path / "part-before.learned")
        wait_until(lambda: client.get("/v1/models/part").json()["learning_error"] is None, SECONDS)
        assert cli("bank", "add", file, aside, "--force").code == 0
        wait_until(lambda: learned(client)[0] == 1, SECONDS)


@pytest.mark.parametrize("damage", ["no line", "newer", "a folder"])
def test_a_folder_that_cannot_be_read_does_not_keep_the_service_from_starting(
    cli: Cli, file: Path, tmp_path: Path, damage: str
) -> None:
    image = tmp_path / "new.png"
    image.write_bytes(bent(1))
    assert cli("bank", "add", file, image, "--force").code == 0
    journal = file.with_suffix(".learned") / "journal.jsonl"
    kept = journal.rename(tmp_path / "kept")
    if damage == "a folder":
        journal.mkdir()
    else:
        journal.write_bytes(b"{}\n" if damage == "no line" else kept.read_bytes())
    if damage == "newer":
        document = '{"schema": 99}'
        journal.write_text(f"{sha256(document.encode())[:16]} {document}\n")
    with serving(file) as server, server.client() as client:
        assert client.get("/readyz").json()["ready"]
        model = client.get("/v1/models/part").json()
        assert model["threshold"] == model["file_threshold"]
        assert str(journal) in model["learning_error"]
        assert str(journal) in server.log
        path = "/v1/models/part/normals?who=anna&force=true"
        assert_problem(client.post(path, content=bent(2)), 409)
        if damage == "a folder":
            journal.rmdir()
        kept.replace(journal)
        wait_until(lambda: learned(client)[0] == 1, SECONDS)
        wait_until(lambda: client.get("/v1/models/part").json()["learning_error"] is None, SECONDS)


def test_a_damaged_image_or_cache_does_not_keep_the_service_from_starting(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        image = tmp_path / f"{seed}.png"
        image.write_bytes(bent(seed))
        assert cli("bank", "add", file, image, "--force").code == 0
    images = file.with_suffix(".learned") / "images"
    data = bytearray((images / "0001.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (images / "0001.npz").write_bytes(data)
    data = bytearray((images / "0002.png").read_bytes())
    data[len(data) // 2] ^= 1
    (images / "0002.png").write_bytes(data)
    with serving(file) as server, server.client() as client:
        assert learned(client)[0] == 1
        error = client.get("/v1/models/part").json()["learning_error"]
        assert error.startswith("image 2 (own/2.png, by ")
        assert f"bank undo {file} 2" in error
        assert f"INFO {images / '0001.npz'} is damaged" in server.log
        listed = cli("bank", "list", file).out.splitlines()
        assert [line.endswith("DOES NOT COUNT") for line in listed[1:3]] == [False, True]
        assert client.delete("/v1/models/part/normals/2?who=otto").status_code == 200
        wait_until(lambda: client.get("/v1/models/part").json()["learning_error"] is None, SECONDS)


@pytest.mark.parametrize("how", ["link", "hard link", "same path", "relative"])
def test_a_file_under_two_names_is_refused_before_something_is_taught(
    cli: Cli, file: Path, how: str, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere/other.onnx"
    other.parent.mkdir()
    if how == "link":
        other.symlink_to(file)
    elif how == "hard link":
        other.hardlink_to(file)
    else:
        other = file if how == "same path" else Path(os.path.relpath(file))
    for name in ("other=", ""):
        done = cli("serve", file, f"{name}{other}", "--port", "0")
        assert done.code == 2
        assert ("is given twice" if how == "same path" else "are the same file") in done.err
    if how == "link":  # in a folder the link is refused alone
        (tmp_path / "a.onnx").symlink_to(file)
        with serving(tmp_path) as server, server.client() as client:
            models = client.get("/v1/models").json()
            assert [one["name"] for one in models["models"]] == ["part"]
            assert "are the same file" in models["not_served"][0]["error"]
            assert "are the same file" in server.log
