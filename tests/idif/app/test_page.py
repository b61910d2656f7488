"""The page of a stand-in run: what it escapes, shows and deletes, and what its server lets in."""

import asyncio
import base64
import gc
import importlib.util
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cli.__main__ import run
from idif.app import html
from idif.app.pictures import Picture
from idif.app.session import Trained
from idif.app.uploads import Upload, UploadError
from idif.evaluation.decision import Decisions
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import Prediction, Thresholds, prediction_json
from idif.inference.results_table import ranked
from idif.methods.section import InferenceOption
from idif.metrics.proportion import Proportion
from idif.runs.fitted import EvaluatedDecision
from tests.helpers.browser import CHROMIUM
from tests.idif.app.test_app import photo, zipped

if importlib.util.find_spec("gradio") is None:
    pytest.skip("gradio not installed; the extra `app` brings it", allow_module_level=True)

import gradio as gr

from idif.app import page
from idif.app import session as session_module
from idif.app.handlers import Handlers, forget
from idif.app.many_parts import ManyParts
from idif.app.options import controls
from idif.app.slider import Slider

pytestmark = [
    # sockets and event loops that Gradio leaves to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

EVIL = "<img src=x onerror=alert(1)>"
SAFE = "&lt;img src=x onerror=alert(1)&gt;"


def judged(part: PredictInput, score: float | None = 0.5, problems: tuple[str, ...] = ()) -> Prediction:
    """A part without maps."""
    views = len(part.images)
    return Prediction(
        part=part,
        present=np.array([image is not None for image in part.images]),
        view_scores=np.full(views, 0.5, np.float32),
        score=score,
        maps=None,
        problems=problems,
    )


PICTURES = [Picture("photograph", np.zeros((4, 4, 3), np.uint8))]


def result(name: str, problem: str = "", score: float | None = 0.5, category: str = "cup") -> dict[str, Any]:
    """The result of a part that no camera has seen."""
    problems = (problem,) if problem else ()
    seen = judged(PredictInput(name, category, (None, None)), score, problems)
    return {**prediction_json(seen, (1, 2), Thresholds(0.4, origin="fixed")), "missing": []}


def unknown(problem: str = "") -> Prediction:
    return judged(PredictInput("a", EVIL, (None,)), None if problem else 0.5, (problem,) if problem else ())


def told(probabilities: dict[str, float]) -> Prediction:
    return judged(PredictInput("a", EVIL, (None,), probabilities))


@pytest.mark.parametrize(
    "shown",
    [
        html.alert(EVIL),
        html.note(EVIL),
        html.heading(EVIL, []),
        html.heading("title", [EVIL]),
        html.results([result(EVIL)], {1: "C1"}, "", "x.csv"),
        html.results([result("a", EVIL)], {1: "C1"}, "", "x.csv"),
        html.results([result("a")], {1: EVIL, 2: "C2"}, "", "x.csv"),
        html.results([result("a")], {1: "C1"}, "", EVIL),
        html.results([result("a")], {1: "C1"}, "", "x.csv", [EVIL]),
        html.verdict(unknown(EVIL), 1.0, None, None),
        html.verdict(unknown(), 1.0, None, EVIL),
        html.verdict(unknown(), 1.0, None, None, EVIL),
        html.verdict(unknown(), 1.0, None, None, None, EVIL),
        html.views([html.ShownView(EVIL, "a.png", "switched off")], None),
        html.views([html.ShownView(EVIL, "a.png", pictures=PICTURES)], None).replace("<img ", ""),
        html.views([html.ShownView("C1", EVIL, pictures=PICTURES)], None).replace("<img ", ""),
        html.verdict(told({EVIL: 0.9}), 1.0, None, None),
        html.verdict(told({"b": 0.8, EVIL: 0.2}), 1.0, None, None),
    ],
    ids=lambda shown: "",
)
def test_names_and_messages_are_text(shown: str) -> None:
    assert SAFE in shown
    assert "<img" not in shown


@pytest.fixture
def collected() -> Iterator[None]:
    """Collects what Gradio leaves, so that no later test is blamed."""
    yield
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def closed_loops() -> Iterator[None]:
    """Closes the event loops that Gradio makes for its locks, sets and forgets: they blamed a later test."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def remembered() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", remembered)
        yield
    asyncio.set_event_loop(None)
    for loop in made:
        if not loop.is_running():
            loop.close()


class Session:
    """A run of one category with two cameras, whose prediction may fail."""

    view_numbers, categories, samples, probe = (1, 2), ("cup",), None, None
    options, defaults = (InferenceOption("steps", "Steps", "choice", (2, 5)),), (("steps", 5),)

    cameras: dict[int, str] = {}  # noqa: RUF012
    evaluated: EvaluatedDecision | None = None

    def __init__(self, uploads: Path, error: Exception | None = None) -> None:
        self.uploads, self.error, self.problem = uploads, error, ""

    def trained(self, category: str, settings: Any = None) -> Trained:
        scorer: Any = None
        changed = None if settings in (None, self.defaults) else "evaluated with 5 steps"
        limits = Thresholds(part=0.4, origin="fixed")
        return Trained(scorer, limits, None, (0.1, 0.9), changed, self.evaluated)

    def predict_with(self, part: PredictInput, cameras: Any, settings: Any = None) -> Prediction:
        self.asked = settings
        if self.error is not None:
            raise self.error
        problems = (f"{part.images[0]}: {self.problem}",) if self.problem else ()
        return judged(part, problems=problems)

    def predict(self, parts: list[PredictInput], settings: Any = None) -> Iterator[Prediction]:
        return (self.predict_with(part, ()) for part in parts)

    def recognized(self, parts: list[PredictInput]) -> list[PredictInput]:
        return parts


def handlers_of(
    uploads: Path,
    error: Exception | None = None,
    cameras: tuple[int, ...] = (1, 2),
    names: dict[int, str] | None = None,
) -> Handlers:
    uploads.mkdir(exist_ok=True)
    session: Any = Session(uploads, error)
    session.view_numbers, session.cameras = cameras, names or {}
    return Handlers(session)


def many_parts_of(handlers: Handlers) -> ManyParts:
    return ManyParts(handlers.session, handlers.cameras)


def visit(name: str) -> gr.Request:
    request: Any = SimpleNamespace(session_hash=name)
    return request


def received(uploads: Path, name: str = "a.png") -> list[str]:
    """A photograph where Gradio puts one."""
    (uploads / "hash").mkdir(parents=True, exist_ok=True)
    return [str(photo(uploads / "hash" / name))]


def folders(uploads: Path) -> list[Path]:
    return sorted(uploads.iterdir())


def test_a_part_stays_until_the_next_one_or_the_end_of_the_visit(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    kept: list[list[Path]] = []
    viewed: Any = None
    for _ in range(2):
        answer = handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, viewed, visit("me"))
        viewed = answer[5]
        kept.append(folders(tmp_path / "uploads"))
        assert kept[-1] == [viewed.upload.folder.parent], "neither Gradio's copy nor the part before"
    assert kept[0] != kept[1]
    handlers.leave(visit("me"))
    assert folders(tmp_path / "uploads") == []


def test_the_part_before_is_deleted_whatever_becomes_of_the_next(tmp_path: Path) -> None:
    """Also without a visit, as where a proxy hides it."""
    handlers = handlers_of(tmp_path / "uploads")
    viewed = handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, None)[5]
    refused = [str(zipped(tmp_path / "x.zip", ["../evil.png"]))]
    answer = handlers.upload(refused, "cup", 0.5, viewed)
    assert "expected a" in answer[6]
    assert folders(tmp_path / "uploads") == []


def test_options_of_the_method_are_controls_and_predict_again(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    session: Any = handlers.session
    viewed = handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, None)[5]
    assert session.asked == (("steps", 5),)
    settings, viewed, verdict, _ = handlers.change([1, 2], 0.4, 0.5, viewed, 2)
    assert settings == session.asked == viewed.settings == (("steps", 2),)
    assert "Evaluated with 5 steps" in verdict
    (control,) = controls(session.options, session.defaults)
    assert control.value == 5
    with pytest.raises(ValueError, match="Steps: 7 is none of its choices"):
        handlers.change([1, 2], 0.4, 0.5, viewed, 7)


def test_a_sample_that_is_chosen_again_stays_as_it_is(tmp_path: Path) -> None:
    """A browser says a choice again when the visitor goes on to the cameras."""
    handlers = handlers_of(tmp_path / "uploads")
    session: Any = handlers.session
    sample = SimpleNamespace(anomaly_class="OK", views=(None, None), has_mask=(False, False))
    session.samples = SimpleNamespace(by_category={})
    session.copy_sample = lambda category, name, upload: (PredictInput(name, category, (None, None)), sample)
    viewed = handlers.pick("S1", "cup", 0.5, None)[5]
    again = handlers.pick("S1", "cup", 0.5, viewed)
    assert len(again) == 8 + 3
    assert all(update == gr.skip() for update in again)
    assert handlers.pick("S2", "cup", 0.5, viewed)[5].photos.sample_id == "S2"


@pytest.mark.parametrize("error", [ValueError("broken"), UploadError("refused")])
def test_what_cannot_be_scored_is_deleted(tmp_path: Path, error: Exception) -> None:
    handlers = handlers_of(tmp_path / "uploads", error)
    if isinstance(error, UploadError):
        assert "refused" in handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, None)[6]
    else:
        with pytest.raises(gr.Error, match="could not be scored"):
            handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, None)
    assert folders(tmp_path / "uploads") == []


@pytest.mark.parametrize("error", [None, ValueError("broken"), UploadError("refused")])
def test_many_parts_leave_nothing(tmp_path: Path, error: Exception | None) -> None:
    handlers = handlers_of(tmp_path / "uploads", error)
    files = received(tmp_path / "uploads", "cup_0001_OK_C1_x.png")

    def progress(*_: Any, **__: Any) -> None:
        pass

    if isinstance(error, ValueError):
        with pytest.raises(gr.Error, match="could not be scored"):
            many_parts_of(handlers).score(files, "cup", progress)
    else:
        shown = many_parts_of(handlers).score(files, "cup", progress)[1]
        assert ("refused" if error else "Save 1 part as CSV") in shown
    assert folders(tmp_path / "uploads") == []


def test_problems_name_no_folder_of_the_server(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    session: Any = handlers.session
    session.problem = "image cannot be read"
    one = handlers.upload(received(tmp_path / "uploads"), "cup", 0.5, None)[6]
    switched = handlers.switch([1], 0.4, 0.5, handlers.upload(received(session.uploads), "cup", 0.5, None)[5])
    many = many_parts_of(handlers).score(received(tmp_path / "uploads"), "cup", lambda *_, **__: None)[1]
    for shown in (one, switched[1], many):
        assert "a.png: image cannot be read" in shown
        assert str(tmp_path) not in shown
    saved = base64.b64decode(many.split("base64,", 1)[1].split('"', 1)[0]).decode()
    assert "a.png: image cannot be read" in saved
    assert str(tmp_path) not in saved


def test_the_slider_s_rounding_does_not_move_the_threshold() -> None:
    slider = Slider(0, 1, 0.001, 0.5004)
    assert [slider.exact(value) for value in (0.5, 0.501, 0.6)] == [0.5004, 0.5004, 0.6]
    assert Slider(0, 1, 0.001, None).exact(0.5) == 0.5


@pytest.mark.parametrize("size", [1e-6, 0.04, 1, 30, 5e6])
def test_the_number_that_a_browser_shows_is_the_threshold_of_the_run(size: float) -> None:
    scorer: Any = None
    threshold = 0.3456789 * size
    slider = Slider.of(Trained(scorer, Thresholds(threshold), None, (0.3 * size, 0.4 * size)))
    assert slider.exact(round(threshold, slider.precision)) == threshold
    assert slider.exact(round(0.36 * size, slider.precision)) != threshold


def test_a_camera_without_a_photograph_is_not_switched_off() -> None:
    pictured = html.ShownView("C3", "c.png", score=-1e-20, pictures=PICTURES)
    views = [
        html.ShownView("C1", None, "no photograph"),
        html.ShownView("C2", "b.png", "switched off"),
        pictured,
    ]
    shown = html.views(views, (-1e-20, 1.0))
    assert "<b>C1</b></figcaption><div>no photograph</div>" in shown
    assert "b.png</span></figcaption><div>switched off</div>" in shown
    assert "score <b>0</b>" in shown
    assert "<span>0</span>" in shown


def test_an_uploaded_file_names_its_camera(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads", names={1: "Top", 2: "left"})
    shown = handlers.upload(received(tmp_path / "uploads", "part7_left.png"), "cup", 0.5, None)
    assert (shown[3]["value"], shown[3]["choices"]) == ([2], [("left", 2)])
    assert '<b>left</b> <span class="file">part7_left.png</span>' in shown[7]
    assert "<b>Top</b></figcaption><div>no photograph</div>" in shown[7]


def test_many_parts_obey_the_threshold_of_the_page(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    for threshold, word in ((0.45, "anomalous"), (0.55, "normal")):
        files = received(tmp_path / "uploads", "cup_0001_OK_C1_x.png")
        shown = many_parts_of(handlers).score(files, "cup", lambda *_, **__: None, (), threshold)[1]
        assert f"<td>cup_0001</td><td>{word}</td><td>0.5000</td><td>0.5000</td><td>-</td><td>C2</td>" in shown
        assert f"1 {word}" in shown
        assert f"threshold {threshold} (chosen on the page)" in shown
        assert 'download="idif.csv"' in shown
    scored = many_parts_of(handlers).score(
        received(tmp_path / "uploads", "C1.png"), "cup", lambda *_, **__: None
    )[2]
    for threshold, words in ((0.45, "1 anomalous, 0 normal"), (0.55, "0 anomalous, 1 normal")):
        assert words in many_parts_of(handlers).decide(scored, "cup", threshold), (
            "moved after the parts were scored"
        )
    assert many_parts_of(handlers).decide(None, "cup", 0.5) == gr.skip()
    scores = [each["score"] for each in ranked([result("a", score=s) for s in (None, 0.1, 0.2)])]
    assert scores == [0.2, 0.1, None]


def test_a_run_of_one_camera_speaks_of_none(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads", cameras=(1,))
    shown = handlers.upload(received(tmp_path / "uploads", "IMG_1.png"), "cup", 0.5, None)
    assert len(shown) == 8, "no photographs to assign"
    many = many_parts_of(handlers).score(
        received(tmp_path / "uploads", "IMG_1.png"), "cup", lambda *_, **__: None
    )[1]
    none = html.verdict(judged(PredictInput("a", "cup", (None,)), None), 0.5, None, None)
    for text in (shown[6], shown[7], many, none, handlers.verdict(None, 0.5), page._many_hint(handlers)):
        assert "camera" not in text
        assert "missing" not in text
        assert "C1" not in text
    assert "IMG_1.png" in shown[7]
    assert "<th" in many


def test_zero_has_no_sign() -> None:
    part = judged(PredictInput("a", "cup", (Path("a.png"),)), -0.0)
    assert "<span>0</span>" in html.verdict(part, 0.5, None, None)


def evaluated(threshold: float) -> EvaluatedDecision:
    """Two of ten anomalous and none of ten normal samples decided wrongly."""
    wrong = Proportion(2, 10), Proportion(0, 10)
    return EvaluatedDecision(Decisions(threshold, "fixed", "fixed", *wrong, {}, (), ()), "test")


def test_the_decisions_of_the_evaluation_hold_at_its_threshold_and_settings_only(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    session: Any = handlers.session
    session.evaluated = evaluated(0.4)
    files = [*received(tmp_path / "uploads", "C1.png"), *received(tmp_path / "uploads", "C2.png")]
    viewed = handlers.upload(files, "cup", 0.5, None)[5]
    found = "n the test samples, threshold 0.4 (fixed): misses 2 of 10 (6 to 51 %), false alarms 0 of 10"
    assert f"O{found}" in handlers.verdict(viewed, 0.4)
    assert f"O{found}" in handlers.verdict(viewed, 0.4001), "a browser's rounding of it"
    moved = handlers.verdict(viewed, 0.6)
    assert f"Misses and false alarms at 0.6 are unknown; o{found}" in moved
    other = handlers.change([1, 2], 0.4, 0.5, viewed, 2)[2]
    assert (
        f"Misses and false alarms with these settings are unknown; with those of the evaluation, o{found}"
        in other
    )
    handlers.change([1, 2], 0.4, 0.5, viewed, 5)
    viewed.prediction.present[1] = False
    assert "with 1 of 2 cameras they may be others" in handlers.verdict(viewed, 0.4)
    for threshold, said in ((0.4, f"O{found}"), (0.6, f"at 0.6 are unknown; o{found}")):
        files = received(tmp_path / "uploads", "cup_0001_OK_C1_x.png")
        assert said in many_parts_of(handlers).score(files, "cup", lambda *_, **__: None, (), threshold)[1]


class Assigned:
    """The photographs of an upload and the cameras that they are given."""

    def __init__(self, uploads: Path, names: list[str], cameras: tuple[int, ...] = (1, 2, 3)) -> None:
        self.handlers = handlers_of(uploads, cameras=cameras)
        files = [file for name in names for file in received(uploads, name)]
        shown = self.handlers.upload(files, "cup", 0.5, None)
        self.viewed, self.verdict, self.pictures, self.box, *self.choices = shown[5:]

    def assign(self, camera: int, chosen: str) -> None:
        """Choose the photograph of a camera."""
        shown = self.handlers.assign(camera, 0.4, 0.5, self.viewed, chosen)
        self.cameras, self.viewed, self.verdict, self.pictures, *self.choices = shown

    @property
    def given(self) -> list[str]:
        """The photograph of each camera, as the page says and as it was scored."""
        shown = [choice["value"] for choice in self.choices]
        images = self.viewed.prediction.part.images
        assert shown == ["no photograph" if path is None else path.name for path in images]
        return shown


def test_a_photograph_is_given_to_another_camera(tmp_path: Path) -> None:
    part = Assigned(tmp_path / "uploads", ["a.png", "b.png"])
    assert part.box["visible"]
    assert part.box["open"], "the names tell no camera"
    assert part.given == ["a.png", "b.png", "no photograph"]
    assert part.choices[0]["choices"] == ["no photograph", "a.png", "b.png"]
    for _ in range(2):  # a browser may say it twice
        part.assign(1, "b.png")
        assert part.given == ["b.png", "a.png", "no photograph"], "the two are exchanged"
    part.assign(3, "a.png")
    assert part.given == ["b.png", "no photograph", "a.png"]
    assert part.cameras["value"] == [1, 3]
    part.assign(1, "no photograph")
    assert part.given == ["no photograph", "no photograph", "a.png"]
    assert "Without a camera: b.png" in part.verdict
    assert '<b>C3</b> <span class="file">a.png' in part.pictures
    assert part.viewed.upload.folder.parent.exists()
    told = Assigned(tmp_path / "told", ["p_C1.png", "p_C3.png"])
    assert told.given == ["p_C1.png", "no photograph", "p_C3.png"]
    assert not told.box["open"]


@pytest.mark.parametrize(
    ("names", "given", "why"),
    [
        (["p_C1.png", "x.png"], ["p_C1.png", None, None], "x.png: its name tells no camera"),
        (["p_C1.png", "q_C1_2.png", "p_C2.png"], None, None),
        (["p_C1.png", "p_C01.png", "p_C2.png"], [None, "p_C2.png", None], "a second file for view 1"),
        (["p_C2.png", "p_C7.png"], [None, "p_C2.png", None], "p_C7.png: view 7, but the run has"),
        (["1.png", "2.png", "3.png", "4.png"], [None, None, None], "4 photographs, but a part has 3 views"),
        ([f"{number}.png" for number in range(7)], None, None),
    ],
    ids=["silent", "two parts", "twice", "other camera", "too many", "far too many"],
)
def test_unclear_cameras_are_assigned_by_hand(
    tmp_path: Path, names: list[str], given: list[str | None] | None, why: str | None
) -> None:
    part = Assigned(tmp_path / "uploads", names)
    if given is None:
        assert part.viewed is None
        assert folders(tmp_path / "uploads") == []
        return
    assert part.given == [name or "no photograph" for name in given]
    assert part.box["open"]
    assert f"{why}" in part.verdict
    assert str(tmp_path) not in part.verdict
    for camera, name in zip((1, 2, 3), reversed(names[:3]), strict=False):
        part.assign(camera, name)
    assert part.given == [*reversed(names[:3]), *["no photograph"] * (3 - len(names))]


def test_a_typed_threshold_widens_the_slider(tmp_path: Path) -> None:
    handlers = handlers_of(tmp_path / "uploads")
    update, value = handlers.widen("cup", 7.5)
    assert (update["maximum"], value) == (7.5, 7.5)
    update, value = handlers.widen("auto", -3)
    assert (update["minimum"], value) == (-3, -3)
    update, value = handlers.widen("cup", 0.5)
    assert "maximum" not in update
    assert value == 0.5


def test_a_camera_that_is_switched_off_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session_module, "predict", lambda scorer, encoders, parts, rebuild: iter(parts))
    loaded: Any = SimpleNamespace(scorer=SimpleNamespace(config=SimpleNamespace(batch_size=2)))
    none: Any = None
    session = session_module.AppSession(none, (1, 4), ("cup",), none, lambda *_: loaded, None, None)
    part: Any = session.predict_with(PredictInput("a", "cup", (tmp_path / "1", tmp_path / "4")), [4])
    assert part.images == (None, tmp_path / "4")


def test_an_archive_is_measured_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idif.app.uploads.UNPACKED_MB", 30e-6)
    upload = Upload.make(tmp_path)
    upload.add([str(zipped(tmp_path / "small.zip", ["1.png"]))])
    with pytest.raises(UploadError, match=r"large\.zip: contains more than .* MB"):
        upload.add([str(zipped(tmp_path / "large.zip", ["2.png", "3.png"]))])
    assert [path.name for path in upload.folder.iterdir()] == ["1.png"]


@pytest.mark.usefixtures("collected")
def test_the_page_deletes_parts_that_nobody_looks_at(tmp_path: Path) -> None:
    session: Any = Session(tmp_path)
    with page.build(session, "title", []) as blocks:
        states = [block for block in blocks.blocks.values() if isinstance(block, gr.State)]
    (viewed,) = (state for state in states if state.delete_callback is forget)
    assert viewed.time_to_live == page.FORGOTTEN_AFTER
    assert any("unload" in str(target) for function in blocks.fns.values() for target in function.targets)


@pytest.mark.usefixtures("collected")
def test_what_follows_a_typed_threshold_does_not_read_the_slider_again(tmp_path: Path) -> None:
    """It may hold a next value beyond its ends by then, which Gradio refuses with an error on the page."""
    session: Any = Session(tmp_path)
    with page.build(session, "title", []) as blocks:
        functions = blocks.fns.items()
    (first,) = (number for number, function in functions if function.name == "widen")
    after, follower = [], first
    while found := [number for number, function in functions if function.trigger_after == follower]:
        (follower,) = found
        after.append(blocks.fns[follower])
    assert [function.name for function in after] == ["verdict", "decide"]
    slider = blocks.fns[first].inputs[1]
    assert isinstance(slider, gr.Slider)
    for function in after:
        assert slider not in function.inputs


@pytest.mark.usefixtures("collected")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium not found; the page is not opened")
def test_a_visitor_who_is_faster_than_the_server_sees_the_last_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import sync_playwright

    def slow_verdict(_: Handlers, viewed: object, threshold: float, category: str = "") -> str:
        time.sleep(0.5)
        return f"{category} from {threshold:g} on"

    session: Any = Session(tmp_path / "uploads")
    session.categories = ("bolt", "cup", "gear")
    monkeypatch.setattr(Handlers, "verdict", slow_verdict)
    blocks = page.build(session, "title", [])
    address = page.serve(blocks, "127.0.0.1", None, None, tmp_path)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            opened = browser.new_page()
            opened.set_default_timeout(30_000)
            opened.goto(address)
            verdict = opened.locator("#verdict")
            for threshold in ("0.2", "0.5", "0.7", "3"):
                opened.fill("#threshold input[type=number]", threshold)
                opened.press("#threshold input[type=number]", "Enter")
            verdict.get_by_text("bolt from 3 on").wait_for()
            for category in ("cup", "gear"):
                opened.get_by_label("Category").click()
                opened.get_by_role("option", name=category).click()
            verdict.get_by_text("gear from 0.4 on").wait_for()
            opened.wait_for_timeout(1500)
            assert verdict.inner_text() == "gear from 0.4 on", "no earlier choice is handled after it"
            browser.close()
    finally:
        blocks.close(verbose=False)


class Visitor:
    """A client of the server that keeps its cookies."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )

    def status(
        self,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        more: dict[str, str] | None = None,
    ) -> int:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind} | (more or {}))
        try:
            with self.opener.open(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code


@pytest.mark.usefixtures("collected")
def test_the_server_asks_for_the_password_and_limits_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "UPLOAD_MB", 1)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("x")
    visitor = Visitor(page.serve(blocks, "127.0.0.1", None, "long enough", tmp_path).rstrip("/"))
    form = "application/x-www-form-urlencoded"
    try:
        assert visitor.status("/config") == 401
        assert visitor.status("/login", b"username=idif&password=wrong+one", form) == 400
        assert visitor.status("/config") == 401
        assert visitor.status("/login", b"username=idif&password=long+enough", form) == 200
        assert visitor.status("/config") == 200
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        parts = {size: head + bytes(size) + b"\r\n--b--\r\n" for size in (10_000, 2_000_000)}
        sent = {
            size: visitor.status("/gradio_api/upload", body, "multipart/form-data; boundary=b")
            for size, body in parts.items()
        }
        assert sent == {10_000: 200, 2_000_000: 413}
        assert visitor.status("/gradio_api/queue/join", bytes(2**20 + 1)) == 413, "the guard is in front"
    finally:
        blocks.close(verbose=False)


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.long)])
def test_a_client_that_sends_its_whole_body_reads_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A connection that is closed earlier breaks under the client, at random."""
    monkeypatch.setattr(page, "UPLOAD_MB", 1)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("x")
    visitor = Visitor(page.serve(blocks, "127.0.0.1", None, None, tmp_path).rstrip("/"))
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    large = head + bytes(8_000_000) + b"\r\n--b--\r\n"
    form = "multipart/form-data; boundary=b"
    try:
        for _ in range(times):
            assert visitor.status("/gradio_api/upload", large, form) == 413, "Gradio's limit of a file"
            assert visitor.status("/gradio_api/queue/join", large) == 413
            assert visitor.status("/gradio_api/upload", large, form, {"Origin": "http://evil"}) == 403
    finally:
        blocks.close(verbose=False)


def test_the_command_hands_its_password_to_the_server(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Any] = []

    def serve(built: Any, *arguments: Any) -> str:
        served.extend(arguments)
        return "http://x/"

    monkeypatch.setattr(page, "build", lambda *_: SimpleNamespace(close=lambda verbose: None))
    monkeypatch.setattr(page, "serve", serve)
    monkeypatch.setattr("cli.commands.app.wait_until_stopped", lambda: None)
    command = ["app", str(world / "runs" / "tiny"), "--host=0.0.0.0", "--port=7999", "--password=long enough"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": "http://x/"}
    host, port, password, uploads = served
    assert (host, port, password) == ("0.0.0.0", 7999, "long enough")
    assert not uploads.exists(), "the folder of uploads goes with the server"
