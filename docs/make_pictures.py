"""Make the pictures of ``docs/images`` from generated data alone: parts, heat maps, the report and the page.

Example:
    idif demo --out demo && python docs/make_pictures.py demo

Needs a finished demo (start this where that was started), the extra `app`, Playwright and a Chromium; without
a demo named only the rendered parts and defects are made. Every picture is kept below 200 kB.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright
from scipy.ndimage import binary_dilation

from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.synthetic import SynthRequest, synthesize
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import KINDS
from idif.datasets.synthetic.sample_renderer import SampleRenderer
from idif.datasets.synthetic.sample_specs import LEVELS, SampleSpec
from idif.evaluation.map_scale import category_scale
from idif.evaluation.predictions import Predictions
from idif.visualization.heatmap import heatmap_image

IMAGES = Path(__file__).parent / "images"
CATEGORIES = 6
VIEWS = 5
TILE = 176
"""Side of a part's picture in pixels."""
GAP = 4
MOST_BYTES = 200_000
LANCZOS = Image.Resampling.LANCZOS
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def save(picture: Image.Image, name: str) -> None:
    """Write a picture as WebP, as good as its limit allows."""
    path = IMAGES / name
    for quality in (90, 80, 70, 60, 50):
        picture.convert("RGB").save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size} bytes")
            return
    raise SystemExit(f"{path}: larger than {MOST_BYTES} bytes")


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size in rows, on white."""
    width, height = rows[0][0].size
    whole = Image.new(
        "RGB", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), (255, 255, 255)
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            whole.paste(picture, (x * (width + GAP), y * (height + GAP)))
    return whole


def parts() -> Image.Image:
    """A part of every kind seen by every camera."""
    with tempfile.TemporaryDirectory() as folder:
        summary = synthesize(
            Path(folder) / "data", SynthRequest(categories=CATEGORIES, train=1, test=2, size=256, seed=1)
        )
        index = read_realiad(RealIADLayout(summary.root, images=summary.images))
        rows = []
        for category in index.categories:
            sample = next(s for s in index.samples if s.category == category and s.split == "train")
            views = [view for view in sample.views if view is not None]
            rows.append([opened(summary.root / view.image) for view in views])
    return sheet([[row[view] for row in rows] for view in range(VIEWS)])


def opened(path: Path) -> Image.Image:
    """A photograph at the size of a tile."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((TILE, TILE), LANCZOS)


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A tile with a line of text in its upper left corner."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    draw.text((6, 4), text, font=font, fill=(255, 255, 255), stroke_width=2, stroke_fill=(30, 30, 30))
    return picture


def categories() -> Image.Image:
    """Every category from above and from one side, five in a row."""
    pairs = []
    with SampleRenderer(256) as renderer:
        for category in BUILDERS:
            images = renderer.render(SampleSpec(1, category, "train", 0)).images
            tiles = [Image.fromarray(images[view]).resize((TILE, TILE), LANCZOS) for view in (0, 4)]
            pairs.append([captioned(tiles[0], category), tiles[1]])
    blank = Image.new("RGB", (TILE, TILE), (255, 255, 255))
    pairs += [[blank, blank]] * (-len(pairs) % 5)
    rows = []
    for first in range(0, len(pairs), 5):
        rows += [[pair[view] for pair in pairs[first : first + 5]] for view in (0, 1)]
    return sheet(rows)


SHOWN_ON = {
    "AK": "emergency_stop",
    "BX": "ball_valve",
    "HS": "battery_holder",
    "PS": "gear",
    "QS": "blister_pack",
    "WP": "hinge",
    "YW": "circuit_board",
    "ZW": "serial_connector",
}


def kinds() -> Image.Image:
    """Every kind of defect at its three levels, the same one at the same place, its mask outlined in red."""
    triples = []
    with SampleRenderer(256) as renderer:
        for kind in KINDS:
            orders = [SampleSpec(4, SHOWN_ON[kind], "test", 1, (kind,), level) for level in LEVELS]
            taken = [renderer.render(order) for order in orders]
            # The view in which the faintest of the three is seen best, cut out around the clearest.
            view = int(np.argmax(taken[-1].masks.sum((1, 2))))
            places = np.argwhere(taken[0].masks[view])
            row, column = np.clip(((places.min(0) + places.max(0)) // 2) - 64, 0, 128)
            tiles = []
            for level, photographs in zip(LEVELS, taken, strict=True):
                image, mask = photographs.images[view].copy(), photographs.masks[view]
                image[binary_dilation(mask, iterations=2) & ~binary_dilation(mask)] = (235, 40, 30)
                cut = Image.fromarray(image[row : row + 128, column : column + 128])
                tiles.append(captioned(cut.resize((TILE, TILE), LANCZOS), f"{kind} {level}"))
            triples.append(tiles)
    return sheet([left + right for left, right in zip(triples[::2], triples[1::2], strict=True)])


def heat_maps(demo: Path) -> Image.Image:
    """The anomalous test sample with the highest score of every category: photographs, masks and maps."""
    predictions = Predictions.open(demo / "run" / "predictions.h5")
    rows = []
    for category in dict.fromkeys(predictions.category):
        bad = [row for row in predictions.rows(category) if predictions.labels[row].any()]
        best = max(bad, key=lambda row: float(predictions.sample_scores[row]))
        low, high = category_scale(predictions, category)
        _, maps, masks = next(iter(predictions.iter_maps([best], 1)))
        photos = [opened(demo / "data" / path) for path in predictions.image_path[best]]
        tiles = []
        for photo, values in zip(photos, maps[0].astype(np.float32), strict=True):
            heat = np.asarray(Image.fromarray((values - low) / (high - low)).resize((TILE, TILE)))
            tiles.append(Image.fromarray(heatmap_image(heat, np.asarray(photo))))
        marks = [Image.fromarray(mask).convert("L").resize((TILE, TILE)).convert("RGB") for mask in masks[0]]
        rows += [photos, marks, tiles]
    return sheet(rows)


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of the run's page while the block runs."""
    command = [sys.executable, "-m", "cli", "app", str(run), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()
            server.communicate()


def photograph(page: Page, path: Path, height: int) -> Image.Image:
    """A screenshot of the browser's window, from the top of the window down to ``height``."""
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height})
    with Image.open(path) as picture:
        return picture.convert("RGB")


def screens(demo: Path) -> None:
    """The report's head, a category in it, and the page with a defective sample and a camera off."""
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shot = Path(folder) / "shot.png"
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.goto((demo / "run" / "report.html").resolve().as_uri())
        save(photograph(page, shot, 1000), "report.webp")
        page.set_viewport_size({"width": 1100, "height": 1600})
        page.locator("details summary h4").first.evaluate("heading => heading.scrollIntoView()")
        save(photograph(page, shot, 1600), "report-pictures.webp")
        page.set_viewport_size({"width": 1280, "height": 960})
        with served(demo / "run") as address:
            predictions = Predictions.open(demo / "run" / "predictions.h5")
            category = predictions.category[0]
            bad = [row for row in predictions.rows(category) if predictions.labels[row].any()]
            best = max(bad, key=lambda row: float(predictions.sample_scores[row]))
            page.goto(address)
            page.click("#sample input")
            page.get_by_role("option", name=predictions.sample_id[best].removeprefix(f"{category}/")).click()
            page.locator("#verdict", has_text="Label of the test sample").wait_for(timeout=60_000)
            last = predictions.camera_name(predictions.view_numbers[-1])
            page.locator("#cameras").get_by_label(last, exact=True).uncheck()
            page.locator("#maps", has_text="switched off").wait_for(timeout=60_000)
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(500)
            save(photograph(page, shot, 960), "page.webp")
        browser.close()


def main() -> None:
    """Make all of them."""
    if len(sys.argv) > 2 or not all((Path(demo) / "run" / "report.html").is_file() for demo in sys.argv[1:]):
        raise SystemExit("usage: python docs/make_pictures.py [DEMO], the folder of a finished `idif demo`")
    save(parts(), "parts.webp")
    save(categories(), "categories.webp")
    save(kinds(), "defects.webp")
    if len(sys.argv) == 1:
        return
    demo = Path(sys.argv[1])
    save(heat_maps(demo), "heat-maps.webp")
    screens(demo)


if __name__ == "__main__":
    main()
