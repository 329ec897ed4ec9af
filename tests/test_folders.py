"""The one reader of folders: every entry is an image or is counted with its reason."""

from __future__ import annotations

import os
import socket
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fsad_edge.errors import InputError
from fsad_edge.runtime.folders import Reason, describe, find_images
from fsad_edge.runtime.own_pictures import marked
from tests.serving import encoded

PHOTOGRAPH = Image.effect_noise((32, 32), 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one photograph in it."""
    PHOTOGRAPH.save(tmp_path / "part.png")
    return tmp_path


def reasons(folder: Path, recursive: bool = True) -> dict[str, Reason]:
    """The name of each skipped entry, with its reason."""
    return {
        os.path.relpath(one.path, folder): one.reason
        for one in find_images(folder, recursive).skipped
    }


@pytest.mark.parametrize(
    "name", ["a.JPEG", "a.jfif", "a.jpe", "a.PNG", "a.webp", "a.tif", "deep/er/a.bmp", "a b/ü.jpg"]
)
def test_images_are_found_by_their_name(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")  # a damaged image is found, too: its error comes with it
    assert find_images(folder).images == sorted([folder / "part.png", folder / name])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("IMG_1.HEIC", b"", Reason.KIND),
        ("raw.nef", b"", Reason.KIND),
        ("scan", b"II+\0" + bytes(20), Reason.MISNAMED),
        ("grey.dat", b"P5\n32 32\n255\n" + bytes(1024), Reason.MISNAMED),
        ("phone.bin", b"\0\0\0\x18ftyphevc" + bytes(20), Reason.MISNAMED),
        ("P6 and P7.txt", b"P6 P7", Reason.OTHER),
        ("film.mp4", b"", Reason.KIND),
        ("part.jpg.bak", encoded(PHOTOGRAPH, "JPEG"), Reason.MISNAMED),
        ("no_suffix", encoded(PHOTOGRAPH, "PNG"), Reason.MISNAMED),
        ("notes.txt", b"these are good", Reason.OTHER),
        ("BMW.txt", b"BMW parts, all good ones", Reason.OTHER),
        ("empty", b"", Reason.OTHER),
        (".part.png", encoded(PHOTOGRAPH, "PNG"), Reason.HIDDEN),
        ("Thumbs.db", b"", Reason.SYSTEM),
        ("old.heatmap.png", encoded(PHOTOGRAPH, "PNG"), Reason.NAMED_OWN),
        ("a.png.1.overlay.jpg", encoded(PHOTOGRAPH, "JPEG"), Reason.NAMED_OWN),
    ],
)
def test_what_is_no_image_is_counted(folder: Path, name: str, data: bytes, reason: Reason) -> None:
    (folder / name).write_bytes(data)
    assert reasons(folder) == {name: reason}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_marked_picture_is_known_under_any_name(folder: Path, kind: str) -> None:
    path = folder / f"renamed.{kind.lower()}"
    PHOTOGRAPH.save(path, kind, **marked(kind))
    assert reasons(folder) == {path.name: Reason.OWN}


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "__MACOSX", "@Recycle"])
def test_folders_of_thumbnails_are_left_out(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    PHOTOGRAPH.save(folder / name / "part.png")
    assert find_images(folder).images == [folder / "part.png"]
    assert name in reasons(folder)


def test_subfolders_are_left_out_where_that_is_asked(folder: Path) -> None:
    (folder / "more").mkdir()
    PHOTOGRAPH.save(folder / "more/part.png")
    assert find_images(folder, recursive=False).images == [folder / "part.png"]
    assert reasons(folder, recursive=False) == {"more": Reason.SUBFOLDER}


def test_links_to_folders_are_followed_once(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    PHOTOGRAPH.save(other / "linked.png")
    (folder / "to_other").symlink_to(other)
    (other / "back").symlink_to(folder)  # a loop
    (folder / "again").symlink_to(other)
    found = find_images(folder)
    assert Counter(path.name for path in found.images) == {"part.png": 1, "linked.png": 1}
    assert [one.reason for one in found.skipped] == [Reason.REPEATED, Reason.REPEATED]


def test_what_cannot_be_looked_at_is_unseen(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s.png"))
        assert reasons(folder) == {
            "gone.png": Reason.BROKEN_LINK, "pipe.png": Reason.SPECIAL, "s.png": Reason.SPECIAL,
        }  # fmt: skip
    assert all(one.unseen for one in find_images(folder).skipped)


def test_a_closed_subfolder_is_unseen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "closed").mkdir(mode=0)
    scandir = os.scandir

    def refuse(path: Path) -> object:  # the superuser, too, who may open every folder
        if path == folder / "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert reasons(folder) == {"closed": Reason.CLOSED}


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no image"):
        find_images(tmp_path)
    (tmp_path / "a.heic").touch()
    (tmp_path / "b.heic").touch()
    with pytest.raises(InputError, match=r"2 skipped: 2 \.heic are not read"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        find_images(tmp_path / "a.heic")
    with pytest.raises(InputError, match="cannot be opened"):
        find_images(tmp_path / ("x" * 300))


@given(
    st.lists(
        st.sampled_from(
            ["a.png", "b.HEIC", "c.txt", ".d.png", "Thumbs.db", "e.heatmap.png", "f", "g.jpe"]
        ),
        unique=True,
    )
)
def test_every_entry_is_accounted_for(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        PHOTOGRAPH.save(folder / "part.png")
        for name in names:
            (folder / name).touch()
        found = find_images(folder)
        assert len(found.images) + len(found.skipped) == len(names) + 1
        if found.skipped:
            assert describe(found.skipped).startswith(f"{len(found.skipped)} skipped: ")
