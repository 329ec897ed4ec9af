"""Regions, twins and the scale on the page, in headless Chromium with a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

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
    assert len(bad["regions"]) > 1
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
