"""Regions, twins, the scale and zones on the page, in headless Chromium with a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import fsad_edge
from fsad_edge import ExportOptions, FinetuneResult
from tests.chromium import NEEDS_CHROMIUM, ActionChains, Keys, Page, browser
from tests.conftest import photograph
from tests.serving import Server, encoded, serving

__all__ = ["browser"]  # a fixture
pytestmark = NEEDS_CHROMIUM

#: Where the photograph is on the screen, and where the outline of each region: left, top, width and
#: height.
PLACES = """
const place = ({left, top, width, height}) => [left, top, width, height];
const image = document.getElementById("picture");
const frame = image.getBoundingClientRect();
const factor = Math.min(frame.width / image.naturalWidth, frame.height / image.naturalHeight);
const [width, height] = [image.naturalWidth * factor, image.naturalHeight * factor];
const left = frame.left + (frame.width - width) / 2, top = frame.top + (frame.height - height) / 2;
const drawn = [...document.querySelectorAll("#region-drawing .over")];
return [[left, top, width, height], drawn.map((one) => place(one.getBoundingClientRect()))];
"""


@pytest.fixture(scope="module")
def server(bundled_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that no test teaches."""
    folder = tmp_path_factory.mktemp("regions")
    with serving(shutil.copy(bundled_file, folder / "part.onnx")) as started:
        yield started


@pytest.fixture
def taught(bundled_file: Path, tmp_path: Path) -> Iterator[Server]:
    """A service that a test may teach."""
    with serving(shutil.copy(bundled_file, tmp_path / "part.onnx")) as started:
        yield started


def score(server: Server, name: str, image: Image.Image, **options: Any) -> dict[str, Any]:
    with server.client() as client:
        files = {"file": (name, encoded(image, quality=95, **options))}
        result: dict[str, Any] = client.post("/v1/score", files=files).json()["results"][0]
    return result


def spotted(seed: int = 11) -> Image.Image:
    """A plate with a spot at the lower right, which is not square."""
    image = photograph(np.random.default_rng(seed))
    ImageDraw.Draw(image).ellipse((72, 72, 82, 82), (165, 120, 90))
    return image.crop((0, 8, 96, 96))


def test_regions_are_numbered_on_the_photograph_and_listed(browser: Page, server: Server) -> None:
    good = score(server, "good.jpg", photograph(np.random.default_rng(0)))
    assert (good["decision"], good["regions"]) == ("good", [])
    browser.open(server.url)
    browser.until_text("#result-name", "good.jpg")
    assert browser["#why-none"].text == "Nothing of this part is above the threshold."
    assert browser.all("#region-drawing .region") == []
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    upright = spotted()
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    for name, image, options in (
        ("upright.jpg", upright, {}), ("lying.jpg", lying, {"exif": on_its_side})
    ):  # fmt: skip
        bad = score(server, name, image, **options)
        assert bad["decision"] == "anomaly"
        browser.until_text("#result-name", name)
        browser.until(lambda: browser["#picture"].is_displayed())
        assert_regions_are_shown(browser, bad, upright.size)
    assert browser.errors() == []


def assert_regions_are_shown(browser: Page, bad: dict[str, Any], size: tuple[int, int]) -> None:
    regions = bad["regions"]
    rows = [row.text.split("\n") for row in browser.all("#regions .row")]
    assert [int(number) for number, *_ in rows] == [one["number"] for one in regions]
    for row, region in zip(rows, regions, strict=True):
        x, y = region["centroid"]
        assert row[1] == f"{region['ratio']:.2f} ×"
        assert row[2:] == [f"{region['area']:,.0f} px²", f"at {x:.0f}, {y:.0f}"]
    for width, height in ((1024, 768), (390, 844)):
        browser.resize(width, height)
        (left, top, *shown), outlines = browser.run(PLACES)
        factor = shown[0] / size[0]
        assert shown[1] / size[1] == pytest.approx(factor, rel=0.01)
        assert len(outlines) == len(regions)
        for outline, region in zip(outlines, regions, strict=True):
            x, y, right, bottom = region["box"]
            wanted = (left + x * factor, top + y * factor, (right - x) * factor)
            assert outline[:3] == pytest.approx(wanted, abs=3)
            assert outline[3] == pytest.approx((bottom - y) * factor, abs=3)
    browser.resize(1024, 768)


def test_the_twin_is_shown_beside_each_region_with_its_sentence(
    browser: Page, server: Server
) -> None:
    image = spotted()
    ImageDraw.Draw(image).ellipse((8, 60, 18, 70), (90, 90, 95))
    bad = score(server, "bad.jpg", image)
    assert bad["regions"]
    with server.client() as client:
        twins = client.get(f"/v1/results/{bad['id']}/twin").json()["twins"]
    browser.open(server.url)
    for number, twin in enumerate(twins, 1):
        browser.until_text("#result-name", "bad.jpg")
        browser.press(str(number))
        browser.until_text("#twin-sentence", twin["sentence"])
        shown = [one.get_attribute("src") for one in browser.all("#twin img")]
        assert shown == [twin["crop"], twin["twin"], twin["difference"]]
        assert browser["#regions [aria-current]"].text.startswith(str(number))
        assert all(one.size["width"] > 80 for one in browser.all("#twin img"))
    assert browser.errors() == []


def test_two_points_of_known_distance_give_millimetres(browser: Page, server: Server) -> None:
    bad = score(server, "bad.jpg", spotted())
    region, (width, _) = bad["regions"][0], spotted().size
    browser.open(server.url)
    browser.resize(1024, 768)
    browser.until_text("#result-name", "bad.jpg")
    browser.until(lambda: browser["#picture"].is_displayed())
    assert "no scale is set" in browser["#scale-words"].text
    browser["#scale-set"].click()
    browser.until(lambda: browser["#scale-picture"].size["width"] > 100)
    assert not browser["#scale-save"].is_enabled()
    photo = browser["#scale-picture"]
    half = photo.size["width"] / 2
    # One point with the mouse, one with the keyboard: half of the photograph's width apart.
    hand = ActionChains(browser.driver)
    hand.move_to_element_with_offset(photo, -round(half / 2), 0).click().perform()
    browser.press(*[Keys.ARROW_RIGHT] * 25, " ")
    browser["#scale-mm"].send_keys("24")
    browser.until_text("#scale-state", "pixels apart. A pixel is 0.5")
    browser["#scale-mm"].send_keys(Keys.ENTER)
    scale = 24 / (width / 2)
    area = browser["#regions .row"].text.split("\n")[2]
    pixels, _, millimetres = area.partition(" = ")
    assert pixels == f"{region['area']:,.0f} px²"
    assert browser["#regions .row"].text.split("\n")[3].endswith(" mm")
    browser.until_text("#twin-sentence", " mm² (")
    wanted = pytest.approx(region["area"] * scale**2, rel=0.03)
    assert float(millimetres.removesuffix(" mm²")) == wanted
    # It is kept, and true for photographs of that size alone.
    browser.driver.refresh()
    browser.until_text("#regions .row", " mm²")
    other = score(server, "other size.jpg", spotted().resize((192, 176)))
    browser.until_text("#result-name", "other size.jpg")
    browser.until_text("#scale-words", "set on photographs of 96 × 88 pixels")
    assert other["regions"]
    assert "mm²" not in browser["#regions"].text
    browser["#scale-set"].click()
    browser.until(lambda: browser["#scale-forget"].is_displayed())
    browser["#scale-forget"].click()
    browser.until_text("#scale-words", "no scale is set")


def test_a_scale_that_the_service_was_told_is_shown(
    browser: Page, bundled_file: Path, tmp_path: Path
) -> None:
    file = shutil.copy(bundled_file, tmp_path / "part.onnx")
    with serving(file, "--mm-per-px", "0.5") as server:
        bad = score(server, "bad.jpg", spotted())
        browser.open(server.url)
        browser.until_text("#regions .row", f"px² = {bad['regions'][0]['area_mm2']:.3g} mm²")
        assert browser["#scale-words"].text == "A pixel is 0.5 mm, as the service was told."
        assert not browser["#scale-set"].is_displayed()


def outline(browser: Page, corners: list[tuple[float, float]]) -> None:
    """Draw an outline with the mouse and close it by a double click; corners are fractions."""
    picture = browser["#zone-picture"]
    width, height = picture.size["width"], picture.size["height"]
    hand = ActionChains(browser.driver)
    for x, y in (*corners, corners[-1]):
        across, down = round((x - 0.5) * (width - 4)), round((y - 0.5) * (height - 4))
        hand.move_to_element_with_offset(picture, across, down).click()
    hand.perform()


def open_editor(browser: Page) -> None:
    browser.run("scrollTo(0, 0)")
    browser.until(lambda: browser["#zones-edit"].is_enabled())
    browser["#zones-edit"].click()
    browser.until(lambda: browser["#zone-picture"].size["width"] > 200)


#: Around the spot.
CORNER = [(0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)]


def test_a_place_that_does_not_count_is_drawn_and_undone(browser: Page, taught: Server) -> None:
    before = score(taught, "before.jpg", spotted())
    assert before["decision"] == "anomaly"
    browser.open(taught.url)
    open_editor(browser)
    assert not browser["#zone-save"].is_enabled()
    outline(browser, CORNER)
    browser.until_text("#zone-state", "The outline is closed.")
    assert len(browser.all("#zone-stage .handle")) == 4
    browser["#zone-note"].send_keys("the label")
    browser["#zone-save"].click()
    browser["#ask-who"].send_keys("Anna", Keys.ENTER)
    browser.until_text("#zone-done", "Saved as no. 1.")
    with taught.client() as client:
        state = client.get("/v1/models/part/zones").json()
        (zone,) = state["zones"]
        assert (zone["kind"], zone["who"], zone["note"]) == ("ignore", "Anna", "the label")
        assert np.array(zone["polygon"]) == pytest.approx(np.array(CORNER), abs=0.02)
        assert state["threshold"] != before["threshold"]
        told = f"Threshold {before['threshold']:.4g} → {state['threshold']:.4g}."
        assert told in browser["#zone-done"].text
        then = browser["#result-then"]
        browser.until(lambda: "The zones have changed since" in then.get_attribute("textContent"))
        assert browser["#zone-weights"].is_displayed()
        counted = browser.run(
            "const c = document.getElementById('zone-weights');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        dark = np.array(counted).reshape(state["rows"], state["columns"], 4)[..., 3] > 0
        assert dark.tolist() == (np.array(state["weights"]) < 1).tolist()
        assert score(taught, "without.jpg", spotted())["decision"] == "good"
        browser.press(Keys.ESCAPE)
        browser.until(lambda: not browser["#zones-dialog"].get_attribute("open"))
        browser.until_text("#result-name", "without.jpg")
        browser.until_text("#zones", "No. 1")
        browser[".toast .plain"].click()  # it covers the button
        browser["#zones button"].click()
        browser["#ask-yes"].click()
        browser.until_text("#zones", "undone by Anna")
        again = score(taught, "again.jpg", spotted())
        assert (again["decision"], again["score"]) == ("anomaly", before["score"])
    assert browser.errors() == []


def test_a_result_of_other_zones_stays_beside_the_threshold_of_its_time(
    browser: Page, taught: Server
) -> None:
    before = score(taught, "before.jpg", spotted())
    assert (before["decision"], before["zones"], before["zones_key"]) == ("anomaly", 0, "")
    zone = {"kind": "ignore", "polygon": [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]}
    with taught.client() as client:
        path = "/v1/models/part/zones?who=anna"
        done = client.post(path, json=zone).json()
        state = client.get("/v1/models/part").json()
        assert client.get("/v1/models/part/threshold").json()["zones"] == state["zones"] == 1
    after = score(taught, "after.jpg", spotted())
    assert (after["zones"], after["zones_key"]) == (1, state["zones_key"])
    assert after["zones_key"] != ""
    browser.open(taught.url)
    browser.until_text("#result-name", "after.jpg")
    browser.until(lambda: len(browser.all("#results .row")) == 2)
    wanted = ["", "zones changed since"]
    browser.until(lambda: browser.texts("#results .row-now") == wanted)
    assert browser.texts("#results .row-ratio")[1] == f"{before['ratio']:.2f}"
    assert "otherwise" not in browser["#counts"].text + browser["#chart-text"].text
    assert "have changed since 1 of them" in browser["#chart-text"].text
    assert "1 result from before the zones changed not counted" in browser["#preview-counts"].text
    if done["threshold"] != done["threshold_after"]:
        browser.until_text("#threshold-origin", "from the zone that was set here")
    browser.run("scrollTo(0, 0)")
    browser.all("#results .row")[1].click()
    browser.until_text("#result-then", "The zones have changed since: score the photograph again")
    assert browser["#decision-ratio"].text == f"{before['ratio']:.2f} × its threshold"
    assert "of good parts" not in browser["#result-facts"].text
    assert "decided GOOD" not in browser["#result-then"].text
    # Without the zone it is the same model again.
    with taught.client() as client:
        client.delete(f"/v1/models/part/zones/{done['id']}?who=anna")
    score(taught, "again.jpg", spotted())
    browser.until(lambda: browser.texts("#results .row-now")[0:3:2] == ["", ""])
    assert browser.errors() == []


def test_a_zone_is_drawn_with_the_keyboard_alone_and_a_lost_example_is_asked_about(
    browser: Page, taught: Server
) -> None:
    with taught.client() as client:
        files = {"file": ("bad.jpg", encoded(spotted(), quality=95))}
        client.post("/v1/models/part/rejects?who=Otto", files=files)
        browser.open(taught.url)
        browser.until(lambda: browser["#zones-edit"].is_enabled())
        browser.press("z")
        browser.until(lambda: browser["#zone-picture"].size["width"] > 200)
        go_to(browser, "#zone-stage")
        # The cross begins in the middle. Esc takes the outline first, and then closes the dialog.
        browser.press(" ", Keys.ESCAPE)
        assert browser.all("#zone-stage .handle") == []
        browser.press(*[Keys.ARROW_LEFT] * 50, *[Keys.ARROW_UP] * 50, " ")
        browser.press(*[Keys.ARROW_RIGHT] * 20, " ", *[Keys.ARROW_DOWN] * 20, " ")
        browser.press(*[Keys.ARROW_LEFT] * 20, " ", Keys.ENTER)
        browser.until_text("#zone-state", "The outline is closed.")
        said = browser["#zone-said"]
        assert said.get_attribute("textContent") == "Outline closed, 4 points."
        browser.press(Keys.PAGE_DOWN, Keys.PAGE_DOWN, Keys.ARROW_RIGHT)
        assert said.get_attribute("textContent") == "21 % across, 0 % down"
        go_to(browser, "[name=zone-kind]")
        browser.press(Keys.ARROW_DOWN)  # it alone counts
        go_to(browser, "#zone-save")
        browser.press(Keys.ENTER)
        browser.until(lambda: browser["#ask-who"].is_displayed())
        browser.press("Anna", Keys.ENTER)
        browser.until_text("#ask-fault", "bad example 1 (bad.jpg, by Otto): anomaly -> good")
        assert client.get("/v1/models/part/zones").json()["zones"] == []
        browser.press(Keys.ENTER)
        browser.until_text("#zone-done", "Changed sides: bad example “bad.jpg” reject → good.")
        (zone,) = client.get("/v1/models/part/zones").json()["zones"]
        assert (zone["kind"], zone["undone"]) == ("look", None)
        corners = [(0.0, 0.0), (0.21, 0.0), (0.2, 0.2), (0.0, 0.2)]
        assert np.array(zone["polygon"]) == pytest.approx(np.array(corners))
        # The focus is back in the editor.
        browser.until(lambda: browser.run("return document.activeElement.id") == "zone-stage")


def go_to(browser: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(20):
        if browser.run("return document.activeElement.matches(arguments[0])", selector):
            return
        browser.press(Keys.TAB)
    raise AssertionError(f"Tab does not reach {selector}")


def test_a_zone_on_the_photograph_on_display_is_stricter_or_more_lenient(
    browser: Page, taught: Server
) -> None:
    score(taught, "bad.jpg", spotted())
    browser.open(taught.url)
    browser.until_text("#result-name", "bad.jpg")
    open_editor(browser)
    browser["#zone-on option[value=photograph]"].click()
    browser.until(
        lambda: browser.run("return document.getElementById('zone-picture').naturalWidth") == 96
    )
    browser["[name=zone-kind][value=lenient]"].click()
    factor = browser["#zone-factor"]
    factor.clear()
    factor.send_keys("5")
    with taught.client() as client:
        threshold = client.get("/v1/models/part/zones").json()["threshold"]
        words = f"Here a score above {5 * threshold:.4g} rejects; elsewhere above {threshold:.4g}."
        assert browser["#zone-effect"].text == words
        # Freehand: it is closed where the button is let go.
        picture = browser["#zone-picture"]
        side = picture.size["height"] // 3
        hand = ActionChains(browser.driver)
        hand.move_to_element_with_offset(picture, 10, 10).click_and_hold()
        for x, y in ((side, 0), (0, side), (-side, 0)):
            hand.move_by_offset(x, y)
        hand.release().perform()
        browser.until_text("#zone-state", "The outline is closed.")
        browser["#zone-save"].click()
        browser["#ask-who"].send_keys("Anna", Keys.ENTER)
        browser.until_text("#zone-done", "Saved as no. 1.")
        (zone,) = client.get("/v1/models/part/zones").json()["zones"]
        assert (zone["kind"], zone["weight"]) == ("weight", pytest.approx(0.2))
        assert len(zone["polygon"]) == 4
        browser["#zone-propose"].click()
        proposed = client.get("/v1/models/part/zones/proposal").json()
        browser.until_text("#zone-state", proposed["sentence"])
        assert bool(browser.all("#zone-stage .draft.whole")) == bool(proposed["polygon"])


def test_a_place_is_painted_in_a_png(browser: Page, taught: Server, tmp_path: Path) -> None:
    score(taught, "bad.jpg", spotted())
    mask = Image.new("RGBA", spotted().size)
    ImageDraw.Draw(mask).rectangle((48, 44, 95, 87), (255, 0, 0, 255))
    mask.save(tmp_path / "mask.png")
    browser.open(taught.url)
    browser.until_text("#result-name", "bad.jpg")
    open_editor(browser)
    browser["#zone-on option[value=photograph]"].click()
    browser["#zone-painted"].send_keys(str(tmp_path / "mask.png"))
    browser.until(lambda: browser["#ask-who"].is_displayed())
    assert "painted in “mask.png” does not count" in browser["#ask-text"].text
    browser["#ask-who"].send_keys("Anna", Keys.ENTER)
    browser.until_text("#zone-done", "Saved as no. 1. ")
    assert "of the part counts" in browser["#zone-done"].text
    assert score(taught, "without.jpg", spotted())["decision"] == "good"


def test_without_pictures_of_the_shots_the_page_says_so_and_zones_are_drawn_on_a_photograph(
    browser: Page, bundled_part: FinetuneResult, tmp_path: Path
) -> None:
    options = ExportOptions(golden=False)
    file = fsad_edge.export(bundled_part, tmp_path / "part.onnx", options).path
    with serving(file) as server:
        score(server, "bad.jpg", spotted())
        browser.open(server.url)
        browser.until_text("#twin-state", "No twin: ")
        assert "pictures of its shots" in browser["#twin-state"].text
        assert browser.all("#twin img") == []
        open_editor(browser)
        assert browser.texts("#zone-on option") == ["The photograph on display"]
    browser.errors()  # the twin that there is not


def test_a_heat_map_is_numbered_unless_the_numbers_are_left_out(server: Server) -> None:
    bad = score(server, "bad.jpg", spotted().resize((384, 352)))
    assert bad["regions"]
    with server.client() as client:
        path = f"/v1/results/{bad['id']}/overlay"
        usual, numbered, plain = (
            client.get(path, params=query).content
            for query in ({}, {"numbers": "true"}, {"numbers": "false"})
        )
    assert usual == numbered != plain
