"""The page in headless Chromium, with a server."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.runtime.onnx_file import replace
from tests.chromium import NEEDS_CHROMIUM, ActionChains, By, Keys, Page, browser
from tests.conftest import Job, photograph
from tests.serving import Server, encoded, reverse_proxy, serving, wait_until

__all__ = ["browser"]  # a fixture
pytestmark = NEEDS_CHROMIUM

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def server(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    files = [shutil.copy(job.file, folder / name) for name in ("part.onnx", "other.onnx")]
    with serving(*files, "--queue", "4", "--keep-mb", "2") as started:
        yield started


@pytest.fixture
def page(browser: Page, server: Server) -> Page:
    """The page, newly opened, with the results of the tests before."""
    browser.open(server.url)
    browser.until(lambda: browser["#state"].text == "Running")
    return browser


@pytest.fixture(scope="module")
def images(job: Job) -> dict[str, bytes]:
    """A good part, and one far above the threshold."""
    shot = Image.open(min(job.shots.iterdir()))
    bad = photograph(np.random.default_rng(11), defect=True)
    return {"good.jpg": encoded(shot, quality=98), "bad.jpg": encoded(bad, quality=95)}


def score(server: Server, name: str, data: bytes) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/v1/score?model=part", files={"file": (name, data)})
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def test_the_page_loads_its_own_files_only(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    page.requests()
    page.errors()
    page.driver.refresh()
    page.until(lambda: page["#state"].text == "Running")
    score(server, "good.jpg", images["good.jpg"])
    page.until_text("#result-name", "good.jpg")
    page.until(lambda: page["#picture"].is_displayed())
    asked = page.requests()
    assert len(asked) > 12
    assert [url for url in asked if not url.startswith((server.url, "blob:" + server.url))] == []
    assert page.errors() == []
    with server.client() as client:
        assert client.get("/v1/models/part").json()["reliability"] in page["#model-facts"].text
    wanted = ["Where and why", "Last rejects", page["#results-heading"].text, "Score history"]
    assert [one.strip() for one in page.texts("h2")[1:5]] == wanted


def test_a_dropped_and_a_chosen_image_show_their_decisions(
    page: Page, images: dict[str, bytes], tmp_path: Path
) -> None:
    page.drop(("dropped good.jpg", images["good.jpg"]))
    page.until_text("#result-name", "dropped good.jpg")
    assert page["#decision-word"].text == "GOOD"
    assert page["#decision use"].get_attribute("href") == "#icon-good"
    chosen = tmp_path / "chosen.jpg"
    chosen.write_bytes(images["bad.jpg"])
    page["#file"].send_keys(str(chosen))
    page.until_text("#result-name", "chosen.jpg")
    assert page["#decision-word"].text == "REJECT"
    assert page["#decision use"].get_attribute("href") == "#icon-reject"
    page.until(lambda: "under its heat map" in page["#picture"].get_attribute("alt"))
    page["#heat"].click()
    page.until(lambda: page["#picture"].get_attribute("alt") == "chosen.jpg")
    page.until(lambda: page["#results .row"].text.split()[0] == "Reject")
    page.until(lambda: "chosen.jpg" in page["#announcer"].get_attribute("textContent"))


def test_errors_of_images_are_shown(page: Page, images: dict[str, bytes]) -> None:
    page.drop(("broken.jpg", images["good.jpg"][:500]), ("good.jpg", images["good.jpg"]))
    page.until_text(".toast.error", "broken.jpg:")
    page.until_text("#result-name", "good.jpg")


def test_a_reject_is_taught_forced_and_undone(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    with server.client() as client:
        before = client.get("/v1/models/part").json()["threshold"]
        wanted = score(server, "to learn.jpg", images["bad.jpg"])
        assert wanted["ratio"] > 1.5  # so that learning it must be forced
        page.until_text("#result-name", "to learn.jpg")
        page["#rejects .teach"].click()
        page.press("Anna", Keys.ENTER)
        page.until_text("#ask-fault", "Are you sure?")
        assert client.get("/v1/models/part").json()["learned"] == 0
        page["#ask-yes"].click()
        page.until_text(".toast", "Learned as no. 1")
        (entry,) = client.get("/v1/models/part/normals").json()["entries"]
        assert (entry["who"], entry["forced"], entry["undone"]) == ("Anna", True, None)
        page.until_text("#learned", "by Anna")
        page.until_text("#rejects li:first-child", "learned")
        assert page["#rejects .teach"].text == "Undo"
        page["#rejects .teach"].click()
        page.until_text("#learned", "undone by Anna")
        after = client.get("/v1/models/part").json()
        assert (after["learned"], after["threshold"]) == (0, before)
        # A second time, undone in the list.
        page["#teach"].click()
        page.until(lambda: page["#ask-yes"].is_displayed())
        assert page["#ask-who"].get_attribute("value") == "Anna"
        page["#ask-yes"].click()
        page.until_text("#ask-fault", "Are you sure?")
        page["#ask-yes"].click()
        page.until_text("#learned-count", "1 active")
        page["#undo-last"].click()
        page["#ask-yes"].click()
        page.until_text("#learned-count", "0 active")
        assert client.get("/v1/models/part").json()["learned"] == 0


def preview(page: Page, position: int) -> None:
    """Move the slider: 100 doubles the threshold."""
    page.run(
        "const slider = document.getElementById('preview'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'));",
        position,
    )


def test_the_slider_previews_and_changes_nothing(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    rng = np.random.default_rng(5)
    for _ in range(6):
        score(server, "more.jpg", encoded(photograph(rng)))
    with server.client() as client:
        results = client.get("/v1/recent?model=part&limit=1000").json()["results"]
        threshold = client.get("/v1/models/part").json()["threshold"]
    scores = np.array([result["score"] for result in results])
    now = int((scores > threshold).sum())
    page.until_text("#preview-counts", f"The threshold of now rejects {now} of the {len(results)} ")
    seen = set()
    for position in (-150, -40, 60, 200):
        preview(page, position)
        then = int((scores > threshold * 2 ** (position / 100)).sum())
        assert f"The previewed one would reject {then}," in page["#preview-counts"].text
        seen.add(then)
    assert len(seen) > 1
    assert "Nothing changes until you apply it" in page["#preview-help"].text
    page["#preview-reset"].click()
    assert page["#preview"].get_attribute("value") == "0"
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT) if page.run(
        "return document.activeElement.id === 'preview'"
    ) else pytest.fail("the slider has not got the focus back")
    assert page["#preview"].get_attribute("value") == "-2"
    with server.client() as client:
        assert client.get("/v1/models/part").json()["threshold"] == threshold


def test_the_preview_compares_scores_with_the_threshold_of_now(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file, rng = shutil.copy(job.file, tmp_path / "part.onnx"), np.random.default_rng(6)
    with serving(file, "--queue", "32") as server, server.client() as client:
        results = [score(server, "plain.jpg", encoded(photograph(rng))) for _ in range(25)]
        scores = np.array([result["score"] for result in results])
        now = float(np.median(scores))
        client.put(f"/v1/models/part/threshold?who=Anna&value={now}")
        browser.open(server.url)
        rejected = int((scores > now).sum())
        assert rejected not in {sum(one["decision"] == "anomaly" for one in results), 25}
        browser.until_text("#preview-counts", f"The threshold of now rejects {rejected} of the 25 ")
        preview(browser, 10)
        then = int((scores > now * 2**0.1).sum())
        assert f"The previewed one would reject {then}," in browser["#preview-counts"].text
        # Another file's scores cannot be compared with this one's threshold.
        shutil.rmtree(tmp_path / "part.learned")
        new = tmp_path / "new.onnx"
        new.write_bytes(replace(job.file.read_bytes(), {}, {"note": "another content"}))
        new.rename(file)
        version = results[0]["version"]
        browser.until(lambda: client.get("/v1/models/part").json()["version"] != version)
        score(server, "of the new file.jpg", images["good.jpg"])
        browser.until_text("#preview-counts", "25 results of an earlier model file not counted.")
        assert " of the 1 judged result shown" in browser["#preview-counts"].text


def shown_ratio(value: float) -> str:
    """A ratio as the page shows it."""
    enough = [digits for digits in (2, 3, 4) if float(f"{value:.{digits}f}") != 1]
    return f"{value:.{enough[0] if enough else 4}f}"


@pytest.mark.parametrize("way", ["page", "elsewhere"])
def test_all_ratios_side_by_side_are_to_one_threshold(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path, way: str
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:
        with Model.load(file) as model:
            near = model.score(images["bad.jpg"]).score / 1.5  # within the range of the slider
        client.put(f"/v1/models/part/threshold?who=Anna&value={near}")
        good, bad = (score(server, name, images[name]) for name in ("good.jpg", "bad.jpg"))
        assert (good["decision"], bad["decision"]) == ("good", "anomaly")
        browser.open(server.url)
        browser.until_text("#result-name", "bad.jpg")
        assert not browser["#result-then"].is_displayed()
        value = 2 * bad["score"]
        if way == "page":
            preview(browser, int(100 * np.log2(value / bad["threshold"])))
            browser["#preview-apply"].click()
            browser["#ask-who"].send_keys("Anna", Keys.ENTER)
            browser.until_text(".toast", "The threshold is")
            value = client.get("/v1/models/part").json()["threshold"]
        else:
            client.put(f"/v1/models/part/threshold?who=Otto&value={value}")
            # The next result tells of it.
        later = score(server, "later.jpg", images["bad.jpg"])
        assert (later["decision"], later["threshold"]) == ("good", value)
        browser.until(lambda: len(browser.all("#results .row")) == 3)
        wanted = [shown_ratio(one["score"] / value) for one in (later, bad, good)]
        browser.until(lambda: browser.texts("#results .row-ratio") == wanted)
        assert browser.texts("#results .row-now") == ["", "now good", ""]
        assert browser["#rejects .thumb-ratio"].text == f"{wanted[1]} ×, now good"
        assert "1 decided otherwise now" in browser["#counts"].text
        assert "would decide 1 of them otherwise" in browser["#chart-text"].text
        assert "rejects 0 of the 3" in browser["#preview-counts"].text
        browser.run("scrollTo(0, 0)")
        browser.all("#results .row")[1].click()
        browser.until_text("#result-name", "bad.jpg")
        assert browser["#decision-ratio"].text == f"{wanted[1]} × threshold"
        then = shown_ratio(bad["ratio"])
        assert browser["#result-then"].text == (
            f"It was decided REJECT at {then} times the threshold of that time. With the threshold "
            "of now it would be decided GOOD."
        )
        browser.until_text("#picture-note", "drawn against the threshold of that time")
        browser["#teach"].click()
        text = f"{then} times the threshold of that time, which is {wanted[1]} times that of now"
        assert text in browser["#ask-text"].text
        browser.press(Keys.ESCAPE)
        browser.all("#results .row")[0].click()
        browser.until_text("#result-name", "later.jpg")
        assert not browser["#result-then"].is_displayed()
        assert browser.errors() == []


def test_teaching_leaves_all_ratios_to_one_threshold(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:
        rng = np.random.default_rng(3)
        results = [score(server, "plain.jpg", encoded(photograph(rng))) for _ in range(4)]
        browser.open(server.url)
        browser.until(lambda: len(browser.all("#results .row")) == 4)
        for result in results:
            path = f"/v1/models/part/normals?who=Anna&force=true&result={result['id']}"
            assert client.post(path).status_code == 201
        value = client.get("/v1/models/part").json()["threshold"]
        assert value != results[0]["threshold"]
        results.append(score(server, "after.jpg", images["bad.jpg"]))
        wanted = [shown_ratio(one["score"] / value) for one in results[::-1]]
        browser.until(lambda: browser.texts("#results .row-ratio") == wanted)


@pytest.fixture(scope="module")
def missed(job: Job) -> bytes:
    """A bad part that the model takes for a good one: it has a spot at the upper left."""
    with Model.load(job.file) as model:
        for seed in range(40):
            image = photograph(np.random.default_rng(seed))
            image.paste((150, 112, 96), (10, 10, 19, 19))
            data = encoded(image, quality=95)
            if model.score(data).good:
                return data
    raise AssertionError("the model finds all spots")


def test_a_missed_part_is_called_bad_with_a_box_and_undone(
    browser: Page, job: Job, missed: bytes, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:
        before = score(server, "missed.jpg", missed)
        assert before["decision"] == "good"
        browser.open(server.url)
        browser.until_text("#result-name", "missed.jpg")
        assert browser["#teach"].is_displayed()
        browser.press("b")
        browser.until(lambda: browser["#ask-picture"].is_displayed())
        photo = browser["#ask-picture"]
        width, height = photo.size["width"], photo.size["height"]
        for left, right in ((-0.45, 0.35), (-0.25, -0.245)):  # the second is a tap
            hand = ActionChains(browser.driver)
            hand.move_to_element_with_offset(photo, int(left * width), int(-0.45 * height))
            hand.click_and_hold().move_by_offset(
                int((right - left) * width), int(0.3 * height)
            ).release().perform()
            assert browser["#ask-unbox"].is_displayed() == (right > 0)
        hand = ActionChains(browser.driver)
        hand.move_to_element_with_offset(photo, int(-0.45 * width), int(-0.45 * height))
        hand.click_and_hold().move_by_offset(int(0.3 * width), int(0.3 * height))
        hand.release().perform()
        assert browser["#ask-box"].is_displayed()
        browser["#ask-who"].send_keys("Otto", Keys.ENTER)
        browser.until_text(".toast", "Kept as no. 1.")
        (entry,) = client.get("/v1/models/part/rejects").json()["entries"]
        assert (entry["who"], entry["name"], entry["rows"] > 0) == ("Otto", "missed.jpg", True)
        for found, wanted in zip(entry["box"], (5, 5, 34, 34), strict=True):
            assert abs(found - wanted) <= 2
        state = client.get("/v1/models/part/threshold").json()["examples"][0]
        words = "The image is rejected from now on" if state["right"] else "still counts as good"
        assert words in browser[".toast"].text
        assert "The place inside the box was used." in browser[".toast"].text
        rows = entry["rows"]
        browser.until_text("#learned", f"{rows} patch{'' if rows == 1 else 'es'} of the box")
        now = "REJECT" if state["right"] else "GOOD"
        browser.until_text(
            "#result-then",
            f"It was called bad since, as no. 1. Scored again, it is {now} at "
            f"{shown_ratio(state['ratio'])} times the threshold of now.",
        )
        browser.until_text("#learned", "called bad by Otto")
        browser.until_text("#model-facts", "0 called good, 1 called bad")
        assert browser["#reject"].text == "Undo “this is bad”"
        assert not browser["#teach"].is_displayed()
        browser["#reject"].click()
        browser.until_text("#learned", "undone by Otto")
        browser.until(lambda: browser["#teach"].is_displayed())
        assert client.get("/v1/models/part").json()["rejected"] == 0
        assert browser.run("return window.blobs") <= 3  # the picture of the dialog is freed


def test_what_is_called_bad_already_is_asked_about(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:
        client.post("/v1/models/part/rejects?who=Anna", content=images["bad.jpg"])
        browser.open(server.url)
        again = score(server, "again.jpg", images["bad.jpg"])
        browser.until_text("#result-name", "again.jpg")
        browser["#reject"].click()
        browser.until(lambda: browser["#ask-yes"].is_displayed())
        browser["#ask-who"].send_keys("Otto", Keys.ENTER)
        browser.until_text("#ask-fault", "called bad already")
        assert browser["#ask-yes"].text == "Keep it anyway"
        browser.press(Keys.ESCAPE)
        assert client.get("/v1/models/part").json()["rejected"] == 1
        assert again["decision"] == "anomaly"


def test_a_box_on_a_turned_photograph_is_in_the_pixels_that_are_shown(
    browser: Page, job: Job, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # by a quarter: 96 x 64 in the file, 64 x 96 to the eye
    image = photograph(np.random.default_rng(12), defect=True).crop((0, 16, 96, 80))
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:
        found = score(server, "turned.jpg", encoded(image, exif=turned))
        assert (found["width"], found["height"]) == (64, 96)
        browser.open(server.url)
        browser.until_text("#result-name", "turned.jpg")
        browser["#reject"].click()
        browser.until(lambda: browser["#ask-picture"].is_displayed())
        photo = browser["#ask-picture"]
        width, height = photo.size["width"], photo.size["height"]
        assert width / height == pytest.approx(64 / 96, abs=0.02)
        hand = ActionChains(browser.driver)
        hand.move_to_element_with_offset(photo, int(-0.4 * width), int(-0.4 * height))
        hand.click_and_hold().move_by_offset(int(0.8 * width), int(0.8 * height))
        hand.release().perform()
        browser["#ask-who"].send_keys("Otto", Keys.ENTER)
        # Its shape is not that of the shots, so that it is not judged.
        browser.until_text("#ask-yes", "Keep it anyway")
        browser["#ask-yes"].click()
        browser.until_text(".toast", "Kept as no. 1.")
        (entry,) = client.get("/v1/models/part/rejects").json()["entries"]
        for place, wanted in zip(entry["box"], (6, 10, 58, 86), strict=True):
            assert abs(place - wanted) <= 3


def test_a_threshold_is_applied_and_undone_and_a_lost_example_is_asked_about(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file) as server, server.client() as client:

        def state() -> dict[str, Any]:
            found: dict[str, Any] = client.get("/v1/models/part/threshold").json()
            return found

        own = state()["value"]
        score(server, "good.jpg", images["good.jpg"])
        bad = score(server, "bad.jpg", images["bad.jpg"])
        files = {"file": ("bad.jpg", images["bad.jpg"])}
        kept = client.post("/v1/models/part/rejects?who=Anna", files=files).json()
        browser.open(server.url)
        browser.until_text("#threshold-origin", "as the model file has it")
        browser.until_text("#preview-examples", "Examples: 1 of 1 decided rightly.")
        assert not browser["#preview-apply"].is_enabled()
        assert not browser["#threshold-undo"].is_displayed()
        preview(browser, 20)
        assert "none of 1 changes sides" in browser["#preview-examples"].text
        browser["#preview-apply"].click()
        assert "Examples: none of 1 changes sides." in browser["#ask-text"].text
        browser["#ask-who"].send_keys("Anna", Keys.ENTER)
        browser.until_text("#threshold-origin", "set by Anna on")
        assert state()["value"] == pytest.approx(own * 2**0.2)
        assert browser["#preview"].get_attribute("value") == "0"
        # What is set elsewhere is shown, and a threshold at which the bad example would be missed.
        near = 0.7 * kept["score_after"]
        client.put(f"/v1/models/part/threshold?who=Otto&value={near}")
        browser.until_text("#threshold-origin", f"{near:.4g}, set by Otto on")
        preview(browser, 60)
        assert "“bad.jpg” (bad) would count as good" in browser["#preview-examples"].text
        browser["#preview-apply"].click()
        browser["#ask-yes"].click()
        browser.until_text("#ask-fault", "bad example 1 (bad.jpg, by Anna): anomaly -> good")
        assert state()["value"] == near
        browser["#ask-yes"].click()
        browser.until_text(".toast", "Changed sides: bad example “bad.jpg” reject → good.")
        browser.until_text("#preview-examples", "Decided wrongly: “bad.jpg” (bad) is good.")
        assert state()["value"] > kept["score_after"]
        browser[".toast button"].click()
        browser.until_text("#threshold-origin", "set by Otto on")
        browser.until_text("#preview-examples", "Examples: 1 of 1 decided rightly.")
        for before in ("set by Anna on", "as the model file has it"):
            browser[".toast .plain"].click()  # it covers the button
            browser["#threshold-undo"].click()
            browser["#ask-yes"].click()
            browser.until_text("#threshold-origin", before)
        assert state()["value"] == own == bad["threshold"]


def test_what_is_not_judged_is_grey_with_the_reason_and_a_count(
    browser: Page, careful_file: Path, foreign: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(careful_file, tmp_path / "part.onnx")
    with serving(file) as server:
        browser.open(server.url)
        browser.until(lambda: browser["#state"].text == "Running")
        score(server, "good.jpg", images["good.jpg"])
        score(server, "bad.jpg", images["bad.jpg"])
        strange = score(server, "strange.png", foreign.read_bytes())
        browser.until_text("#result-name", "strange.png")
        assert browser["#decision-word"].text == "NOT JUDGED"
        assert browser["#decision use"].get_attribute("href") == "#icon-unjudged"
        words = {"unlike": "something else than the shots do", "flat": "a plain surface"}
        assert words[strange["doubts"][0]] in browser["#flags-text"].text
        assert strange["reasons"][0] in browser["#result-facts"].text
        assert browser["#decision-ratio"].text == ""
        red, green, blue = browser.run(
            "return getComputedStyle(document.getElementById('decision')).backgroundColor"
            ".match(/\\d+/g).map(Number)"
        )
        assert max(red, green, blue) - min(red, green, blue) < 40
        # It is shown as it was photographed.
        browser.until(lambda: browser["#picture"].get_attribute("alt") == "strange.png")
        assert not browser["#heat"].is_enabled()
        assert browser["#counts"].text == "1 good · 1 rejected · 1 not judged"
        assert browser["#results .row"].text.split("\n")[:2] == ["Not judged", "–"]
        browser.until_text("#service", "1 good, 1 reject, 1 not judged since")
        browser.until_text("#chart-text", "1 reject (33.3 %), 1 not judged.")
        assert "of the 2 judged results" in browser["#preview-counts"].text
        assert len(browser.all("#rejects li")) == 1
        announced = browser["#announcer"]  # with others, or alone: "Not judged: …"
        browser.until(lambda: "ot judged" in announced.get_attribute("textContent"))
        browser.press("j")
        browser.until_text("#result-name", "bad.jpg")
        assert browser["#heat"].is_enabled()


def test_faint_traces_show_what_lies_below_the_threshold(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    score(server, "faint.jpg", images["good.jpg"])
    page.until_text("#result-name", "faint.jpg")
    page.until(lambda: "under its heat map" in page["#picture"].get_attribute("alt"))
    assert not page["#picture-note"].is_displayed()
    page.requests()
    page.press("f")
    page.until_text("#picture-note", "Blue is below the threshold.")
    assert any("/overlay?scale=near&" in url for url in page.requests())
    assert page["#near"].get_attribute("aria-pressed") == "true"
    page["#heat"].click()
    page.until(lambda: page["#picture"].get_attribute("alt") == "faint.jpg")
    assert not page["#near"].is_enabled()
    page["#heat"].click()
    page.until_text("#picture-note", "Blue is below the threshold.")
    page["#near"].click()
    page.until(lambda: not page["#picture-note"].is_displayed())


def test_the_page_shows_after_a_restart_what_was_there_before(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one good.jpg").write_bytes(images["good.jpg"])
    (folder / "one bad.jpg").write_bytes(images["bad.jpg"])
    with serving(job.file, "--watch", folder) as server, server.client() as client:
        wait_until(lambda: client.get("/v1/status").json()["watch"]["scored"] == 2)
        score(server, "sent.jpg", images["bad.jpg"])
    with serving(job.file, "--watch", folder) as server:
        browser.open(server.url)
        browser.until_text("#service", "1 good, 2 rejects since")
        browser.until(lambda: len(browser.all("#results .row")) == 3)
        browser.until_text("#result-name", "sent.jpg")
        browser.until_text("#no-picture", "This picture is no longer kept.")
        browser.until(lambda: len(browser.all("#rejects img:not([hidden])")) == 1)
        rows = {row.text.split("\n")[2]: row for row in browser.all("#results .row")}
        rows["one bad.jpg"].click()
        browser.until_text("#result-name", "one bad.jpg")
        browser.until(lambda: "under its heat map" in browser["#picture"].get_attribute("alt"))
        assert not browser["#picture-note"].is_displayed()
        rows["one good.jpg"].click()
        browser.until_text("#result-name", "one good.jpg")
        browser.until(lambda: browser["#picture"].get_attribute("alt") == "one good.jpg")
        browser.until_text("#picture-note", "The heat map is no longer kept.")
    browser.errors()  # the pictures that are gone


#: The decisions as the list of results counts them.
COUNTED = {"good": "good", "anomaly": "rejected", "not_judged": "not judged"}


def assert_counts_agree(
    browser: Page,
    server: Server,
    folder: Path,
    earlier: Counter[str],
    learned: int,
    rejected: int,
) -> Counter[str]:
    """Compare the page, the API, the metrics and the results file. Returns results by decision."""
    with server.client() as client:
        recent = client.get("/v1/recent?limit=1000").json()["results"]
        decided = Counter(one["decision"] for one in recent)
        lines = folder / "results.jsonl"
        wait_until(lambda: lines.read_text().count("\n") == len(recent))
        written = map(json.loads, lines.read_text().splitlines())
        assert Counter(line["decision"] for line in written) == decided
        status = client.get("/v1/status").json()["counts"]
        assert {one: status[one] for one in COUNTED} == {one: decided[one] for one in COUNTED}
        metrics = client.get("/metrics").text
        for decision in COUNTED:
            name = f'{{decision="{decision}",model="part",source="http"}} '
            found = re.search(f"fsad_edge_images_total{re.escape(name)}(\\S+)", metrics)
            now = decided[decision] - earlier[decision]  # those of this run
            assert float(found[1] if found else 0) == now
        assert f'fsad_edge_model_learned{{model="part"}} {learned}.0' in metrics
        assert f'fsad_edge_model_rejected{{model="part"}} {rejected}.0' in metrics
        model = client.get("/v1/models/part").json()
        assert (model["learned"], model["rejected"]) == (learned, rejected)
    shown = [f"{decided[one]} {words}" for one, words in COUNTED.items()]
    browser.until(lambda: browser["#counts"].text.split(" · ")[:3] == shown)
    good, bad, unjudged = (decided[one] for one in COUNTED)
    plural = "reject" if bad == 1 else "rejects"
    browser.until_text("#service", f"{good} good, {bad} {plural}, {unjudged} not judged since")
    browser.until_text("#model-facts", f"{learned} called good, {rejected} called bad")
    return decided


def test_all_counts_agree_after_each_change_and_after_a_kill(
    browser: Page, careful_file: Path, foreign: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    file, folder = shutil.copy(careful_file, tmp_path / "part.onnx"), tmp_path / "results"
    images = {**images, "strange.png": foreign.read_bytes()}

    def agree(server: Server, learned: int, rejected: int) -> Counter[str]:
        return assert_counts_agree(browser, server, folder, earlier, learned, rejected)

    earlier: Counter[str] = Counter()
    options = ("--results", folder)
    server = Server(file, *options)
    try:
        browser.open(server.url)
        results = {name: score(server, name, data) for name, data in images.items()}
        assert {one["decision"] for one in results.values()} == set(COUNTED)
        agree(server, 0, 0)
        with server.client() as client:
            for path in (f"rejects?result={results['bad.jpg']['id']}",
                         f"normals?result={results['good.jpg']['id']}&force=true"):  # fmt: skip
                assert client.post(f"/v1/models/part/{path}&who=Anna").status_code == 201
            agree(server, 1, 1)
            value = results["bad.jpg"]["score"] * 20
            answer = client.put(f"/v1/models/part/threshold?who=Anna&value={value}&force=true")
            assert answer.status_code == 200
        assert score(server, "again.jpg", images["bad.jpg"])["decision"] == "good"
        earlier = agree(server, 1, 1)
    finally:
        server.process.kill()
        server.terminate()
    with serving(file, *options) as server:
        browser.open(server.url)
        agree(server, 1, 1)
        score(server, "good.jpg", images["good.jpg"])
        agree(server, 1, 1)
        with server.client() as client:
            assert client.delete("/v1/models/part/rejects/1?who=Anna&force=true").status_code == 200
        agree(server, 1, 0)


def test_the_page_tells_whether_turned_parts_count_as_good(
    browser: Page, job: Job, bundled_file: Path
) -> None:
    for file in (job.file, bundled_file):
        with Model.load(file) as model:
            turned = model.metadata.bank_rotations > 1
        with serving(file) as server:
            browser.open(server.url)
            browser.until_text("#model-facts", "Reliability")
            told = "Turned parts count as good." in browser["#model-facts"].text
            assert told == turned


def test_a_hostile_name_is_text(page: Page, images: dict[str, bytes]) -> None:
    name = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)<\\/script>.jpg"
    page.drop((name, images["bad.jpg"]))
    page.until_text("#result-name", "<img src=x onerror=")
    page.until(lambda: name[:19] in page["#results .row-name"].text)
    page.until(lambda: name[:19] in page["#rejects .thumb-open"].get_attribute("aria-label"))
    assert page["#result-name"].find_elements(By.CSS_SELECTOR, "*") == []
    assert page.all("main script") == []
    assert "owned" not in page.driver.title


def test_keyboard(page: Page, server: Server, images: dict[str, bytes]) -> None:
    older = score(server, "older.jpg", images["bad.jpg"])
    score(server, "newer.jpg", images["good.jpg"])
    page.until_text("#result-name", "newer.jpg")
    page.press("j")
    page.until_text("#result-name", "older.jpg")
    assert page["#pinned"].is_displayed()
    page.press("g")
    page.until(lambda: page["#ask-dialog"].get_attribute("open"))
    page.press(Keys.ESCAPE)
    page.until(lambda: not page["#ask-dialog"].get_attribute("open"))
    page.press("l")
    page.until_text("#result-name", "newer.jpg")
    page.press("?")
    assert page["#help-dialog"].is_displayed()
    page["#keys"].click()
    page["#help-close"].click()
    page.press("j")  # switched off
    assert not page["#pinned"].is_displayed()
    assert older["decision"] == "anomaly"
    # Tab reaches all controls in the order of the page, each with a name and a visible outline.
    page.run("document.activeElement.blur(); scrollTo(0, 0);")
    reached = []
    for _ in range(12):
        page.press(Keys.TAB)
        reached.append(
            page.run(
                "const e = document.activeElement, s = getComputedStyle("
                "e.matches('input[type=file]') ? e.parentElement : e);"
                "return [e.id || e.className, s.outlineStyle, e.getAttribute('aria-label') || "
                "(e.labels?.[0] ?? e).textContent.trim()]"
            )
        )
    names = [name for name, _, _ in reached]
    order = ["skip", "model", "theme", "help", "heat", "near", "teach", "reject", "file"]
    assert names[: len(order)] == order
    assert {outline for _, outline, _ in reached} == {"solid"}
    assert all(label for _, _, label in reached)


def test_rejects_of_other_models_are_shown(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    page.until(lambda: page["#model"].is_displayed())
    with server.client() as client:
        client.post("/v1/score?model=other", files={"file": ("elsewhere.jpg", images["bad.jpg"])})
    page.until_text("#elsewhere", "other: 1 reject")
    page["#elsewhere button"].click()
    page.until_text("#result-name", "elsewhere.jpg")
    assert page["#model"].get_attribute("value") == "other"
    assert page["#elsewhere"].text == ""


def test_colours_are_chosen_and_kept(page: Page) -> None:
    def ground() -> str:
        return str(page.run("return getComputedStyle(document.body).backgroundColor"))

    light = ground()
    page["#theme"].click()
    dark = ground()
    assert dark != light
    page.driver.refresh()
    page.until(lambda: page["#theme"].get_attribute("aria-pressed") == "true")
    assert ground() == dark


def test_a_lost_connection_is_shown_and_restored(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    def offline(cut: bool) -> None:
        page.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": cut, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )

    page.driver.execute_cdp_cmd("Network.enable", {})
    offline(True)
    page.until(lambda: page["#banner"].is_displayed())
    assert page["#state"].text == "No connection"
    score(server, "meanwhile.jpg", images["bad.jpg"])
    offline(False)
    page.until(lambda: not page["#banner"].is_displayed())
    page.until_text("#result-name", "meanwhile.jpg")
    page.errors()


def test_the_memory_of_the_page_is_limited(
    page: Page, server: Server, images: dict[str, bytes]
) -> None:
    # Padding makes the service drop old images; the newest are shown all the same.
    padding = bytes(60_000)
    for index in range(80):
        name = "bad.jpg" if index % 2 else "good.jpg"
        score(server, f"{index}.jpg", images[name] + padding)
    page.until_text("#result-name", "79.jpg")
    page.until(lambda: page["#picture"].is_displayed())
    page.until(lambda: len(page.all("#rejects img:not([hidden])")) == 12)
    page.until(lambda: page.run("return window.blobs") <= 13)
    assert len(page.all("#results li")) == 50
    score(server, "the newest good one.jpg", images["good.jpg"] + padding)
    page.until_text("#result-name", "the newest good one.jpg")
    page.until(lambda: page["#picture"].is_displayed())
    assert page.errors() == []


def test_the_page_asks_for_the_token(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    with serving(file, environment={"FSAD_EDGE_TOKEN": TOKEN}) as server:
        with server.client() as client:
            assert client.get("/v1/recent").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with server.client(headers=headers) as client:
            client.post("/v1/score", files={"file": ("secret.jpg", images["bad.jpg"])})
        browser.open(server.url)
        browser.until(lambda: browser["#login"].is_displayed())
        browser.press("wrong-token-wrong-token", Keys.ENTER)
        browser.until_text("#login-fault", "not the token")
        assert browser["#result-name"].text == ""
        browser.press(TOKEN, Keys.ENTER)
        browser.until_text("#result-name", "secret.jpg")
        browser.until(lambda: browser["#picture"].is_displayed())
        browser.driver.refresh()
        browser.until_text("#result-name", "secret.jpg")
        assert not browser["#login"].is_displayed()
        assert TOKEN not in " ".join(browser.requests())


def test_the_page_tells_what_a_watched_folder_waits_for_and_that_it_is_stuck(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.jpg").write_bytes(images["good.jpg"])
    with serving(job.file, "--watch", folder) as server:
        browser.open(server.url)
        browser.until_text("#service", "1 image scored since the start; 0 waiting")
        browser.until_text("#service", "1 subfolder is not read")
        folder.rename(tmp_path / "away")
        browser.until_text("#state", "Folder stuck")
        browser.until_text("#service", "cannot be read: No such file or directory")
        assert browser.errors() == []


def test_the_page_names_a_model_file_that_is_not_served(
    browser: Page, job: Job, tmp_path: Path
) -> None:
    shutil.copy(job.file, tmp_path / "part.onnx")
    (tmp_path / "torn.onnx").write_bytes(job.file.read_bytes()[:5000])
    with serving(tmp_path) as server:
        browser.open(server.url)
        browser.until_text("#service", "torn.onnx")
        browser.until(lambda: browser["#state"].text == "Model file refused")


def test_the_page_works_below_a_path_of_a_proxy(
    browser: Page, job: Job, images: dict[str, bytes], tmp_path: Path
) -> None:
    file = shutil.copy(job.file, tmp_path / "part.onnx")
    options = ("--root-path", "line/cell-3/")
    with serving(file, *options, environment={"FSAD_EDGE_TOKEN": TOKEN}) as server:
        for strip in (True, False):
            with reverse_proxy(server.url, "/line/cell-3", strip) as url:
                browser.open(url)  # without a slash at its end
                browser.until(lambda: browser["#login"].is_displayed())
                browser.errors()
                browser.requests()
                browser.press(TOKEN, Keys.ENTER)
                browser.until(lambda: browser["#state"].text == "Running")
                browser.drop((f"{strip}.jpg", images["good.jpg"]))
                browser.until_text("#result-name", f"{strip}.jpg")
                browser.until(lambda: browser["#picture"].is_displayed())
                assert browser.errors() == []
                asked = [one for one in browser.requests() if not one.startswith(("blob", "about"))]
                assert [one for one in asked if not one.startswith(url)] == []
