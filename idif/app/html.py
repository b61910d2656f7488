"""HTML fragments of the page: the verdict, the pictures of each camera, and the table of many parts.

Images are embedded as data URIs, so that no URL refers to a file of the server.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from idif.app.pictures import Picture
from idif.inference.predict import Prediction
from idif.inference.results_table import DECISIONS, Result, ranked
from idif.visualization.data_uri import webp_data_uri
from idif.visualization.heatmap import color_bar_css
from idif.visualization.text import as_sentence

ROWS_SHOWN = 200
_ZERO = 1e-12
"""Numbers below it are shown as 0, without a sign."""
_CLEARLY = 0.5
"""From this probability on another category than that of the part is worth a warning."""
_SHOWN, _LEAST = 3, 0.005
"""Categories whose probabilities are shown, at most, and the least such probability."""


def number_text(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, and without the sign of a zero."""
    return f"{value:.{digits}g}" if abs(value) >= _ZERO else "0"


def alert(message: str) -> str:
    """A message that screen readers announce immediately."""
    return f'<p class="alert" role="alert">{escape(message)}</p>'


def note(message: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(message)}</p>'


def heading(title: str, notes: Sequence[str]) -> str:
    """The page's title, and a list of caveats."""
    items = "".join(f"<li>{escape(as_sentence(text))}</li>" for text in notes)
    return f"<h1>{escape(title)}</h1>" + (f'<ul class="caveats">{items}</ul>' if items else "")


def verdict(
    prediction: Prediction,
    threshold: float,
    run_threshold: float | None,
    label: str | None,
    otherwise: str | None = None,
    decisions: str | None = None,
) -> str:
    """Score and decision of a part.

    Args:
        prediction: with the cameras that are switched on.
        threshold: of the slider; scores from it on are anomalous.
        run_threshold: chosen by evaluation; None if there is none.
        label: of a test sample; None for an upload.
        otherwise: a sentence if the evaluation was one with other settings.
        decisions: a sentence about the misses and false alarms of the evaluation.
    """
    several = len(prediction.present) > 1
    if prediction.score is None:
        words = "none of the selected cameras has a readable photograph" if several else "it cannot be read"
        words = f"No score: {words}."
        return note(words) + "".join(map(alert, prediction.problems))
    bad = prediction.score >= threshold
    kind, word = ("bad", "Anomalous") if bad else ("good", "Normal")
    rule = f"Anomalous from {number_text(threshold)} on"
    if run_threshold is None:
        rule += "; the run has no threshold yet (idif eval chooses one)"
    elif not np.isclose(run_threshold, threshold, rtol=1e-3):
        rule += f"; the run's threshold is {number_text(run_threshold)}"
    if several:
        rule += f"; score from {_cameras(prediction)}"
    lines = [
        f'<p class="verdict {kind}"><strong>{word}</strong>'
        f' <span class="total"><small>score</small> <span>{number_text(prediction.score)}</span></span></p>',
        f'<p class="note">{escape(rule)}.</p>',
    ]
    if label is not None:
        lines.append(note(f"Label of the test sample: {label}."))
    if prediction.part.probabilities:
        lines.append(_probabilities(prediction.part.category, prediction.part.probabilities))
    lines += [note(as_sentence(text)) for text in (otherwise, decisions) if text is not None]
    return f'<div aria-live="polite">{"".join(lines)}</div>' + "".join(map(alert, prediction.problems))


def _cameras(prediction: Prediction) -> str:
    present, total = int(prediction.present.sum()), len(prediction.present)
    return f"all {total} cameras" if present == total else f"{present} of {total} cameras"


def _probabilities(category: str, told: Mapping[str, float]) -> str:
    """The most probable categories by the photographs; a warning if another one than the part's is likely."""
    likely = [(name, value) for name, value in list(told.items())[:_SHOWN] if value >= _LEAST]
    words = "Category by the photographs: "
    words += ", ".join(f"{name} {100 * value:.0f} %" for name, value in likely) + "."
    first, value = next(iter(told.items()))
    if first != category and value >= _CLEARLY:
        return alert(f"{words} The part is scored as {category}: is this the right category?")
    return note(words)


class ShownView(NamedTuple):
    """One camera on the page."""

    camera: str | None
    """Its name; None in a run of one camera, whose score is that of the part."""
    file: str | None
    """Name of its photograph; None without one."""
    absent: str = ""
    """Why there are no pictures."""
    score: float = 0.0
    pictures: Sequence[Picture] = ()


def views(shown: Sequence[ShownView], scale: tuple[float, float] | None) -> str:
    """The pictures of each camera side by side; a click enlarges one.

    Args:
        shown: of every camera of the run.
        scale: (low, high) of the color scale; None without maps.
    """
    count = max((len(view.pictures) for view in shown), default=0) or 1
    figures = "".join(_figure(view) for view in shown)
    alone = " alone" if len(shown) == 1 else ""
    legend = "" if scale is None else _legend(scale)
    return f'<div class="views{alone}" style="--pictures: {count}">{figures}</div>{legend}'


def _figure(view: ShownView) -> str:
    of = "" if view.camera is None else f" of {view.camera}"
    names = [] if view.camera is None else [f"<b>{escape(view.camera)}</b>"]
    names += [] if view.file is None else [f'<span class="file">{escape(view.file)}</span>']
    if view.absent:
        return (
            f'<figure class="off"><figcaption>{" ".join(names)}</figcaption>'
            f"<div>{escape(view.absent)}</div></figure>"
        )
    if view.camera is not None:
        names.append(f'<span class="score">score <b>{number_text(view.score)}</b></span>')
    pictures = "".join(
        f'<label class="zoom"><input type="checkbox" aria-label="Enlarge: {escape(picture.title + of)}">'
        f'<img src="{webp_data_uri(picture.image)}" alt="{escape(picture.title + of)}">'
        f"<span>{escape(picture.title)}</span></label>"
        for picture in view.pictures
    )
    return (
        f'<figure><figcaption>{" ".join(names)}</figcaption><div class="pictures">{pictures}</div></figure>'
    )


def _legend(scale: tuple[float, float]) -> str:
    low, high = (number_text(end, 3) for end in scale)
    return (
        f'<p class="legend"><span>anomaly map</span> <span>{low}</span>'
        f'<i style="background:{color_bar_css()}" role="img" aria-label="color scale from low to high"></i>'
        f"<span>{high}</span></p>" + note("Click a picture to enlarge it, and again to close it.")
    )


def results(
    of_parts: Sequence[Result],
    cameras: Mapping[int, str],
    csv_text: str,
    file_name: str,
    notes: Sequence[str] = (),
) -> str:
    """Notes, a link that saves all rows, and the first rows, the highest scores first.

    Args:
        of_parts: results of all parts.
        cameras: camera number -> its name, of all cameras of the run.
        csv_text: the saved file.
        file_name: its name.
        notes: sentences above the table.
    """
    link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv_text.encode()).decode("ascii")
    categories = len({result["category"] for result in of_parts}) > 1
    missing = len(cameras) > 1 and any(result["missing"] for result in of_parts)
    several, problems = len(cameras) > 1, any(result["problems"] for result in of_parts)
    header = ["part", "decision", "score"]
    header += ["threshold", "category"] if categories else []
    header += list(cameras.values()) if several else []
    header += ["missing"] if missing else []
    header += ["problems"] if problems else []
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = ""
    for result in ranked(of_parts)[:ROWS_SHOWN]:
        of_views = result["views"]
        scores = [of_views[str(n)]["score"] if str(n) in of_views else None for n in cameras]
        row = [result["sample"], DECISIONS[result["anomalous"]], _number(result["score"])]
        row += [_number(result["threshold"]), result["category"]] if categories else []
        row += map(_number, scores) if several else []
        row += [", ".join(cameras[n] for n in result["missing"])] if missing else []
        row += ["; ".join(result["problems"])] if problems else []
        kind = {True: ' class="bad"', False: ' class="good"', None: ""}[result["anomalous"]]
        body += f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    more = len(of_parts) - ROWS_SHOWN
    parts = "1 part" if len(of_parts) == 1 else f"{len(of_parts)} parts"
    return (
        "".join(note(as_sentence(text)) for text in notes)
        + f'<p><a class="save" download="{escape(file_name)}" href="{link}">Save {parts} as CSV</a></p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="results"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
        + (note(f"{more} more rows are in the CSV file.") if more > 0 else "")
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:#.4g}".removesuffix(".")


STYLE = """
.html-container { padding: 0 !important; }
button[role="tab"].selected { color: var(--body-text-color); }
.verdict { font-size: 1.6rem; margin: 0; padding: .5rem .9rem; border-radius: .5rem; display: flex; gap: 1rem;
  justify-content: space-between; border-left: .5rem solid; background: var(--background-fill-secondary); }
.verdict.bad { border-color: #c62828; } .verdict.good { border-color: #2e7d32; }
.verdict .total { margin-left: auto; white-space: nowrap; }
.verdict small { font-size: .9rem; opacity: .8; margin-right: .4rem; }
.verdict span { font-variant-numeric: tabular-nums; }
.note { opacity: .8; margin: .35rem 0; }
.caveats { opacity: .8; margin: .2rem 0 0; padding-left: 1.1rem; font-size: .9rem; list-style: disc; }
.alert { border-left: .25rem solid #e08a00; padding: .35rem .7rem; margin: .35rem 0;
  background: var(--background-fill-secondary); }
.views { display: grid; gap: 1rem 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(var(--pictures) * 8.8rem)), 1fr)); }
.views.alone { grid-template-columns: minmax(0, calc(var(--pictures) * 28rem)); }
.views figure { margin: 0; display: flex; flex-direction: column; min-width: 0; }
.views figcaption { display: flex; gap: .6rem; align-items: baseline; padding-bottom: .3rem;
  font-variant-numeric: tabular-nums; }
.views .file { flex: 1; min-width: 0; overflow-wrap: anywhere; font-size: .85rem;
  color: var(--body-text-color-subdued); }
.views .score { margin-left: auto; white-space: nowrap; }
.pictures { display: grid; gap: .4rem; grid-template-columns: repeat(var(--pictures), minmax(0, 1fr)); }
.pictures img { width: 100%; height: auto; border-radius: .35rem; display: block; margin: 0; }
.pictures span { display: block; font-size: .8rem; padding-top: .15rem;
  color: var(--body-text-color-subdued); }
.views .off div { flex: 1; min-height: 6rem; border: 1px dashed var(--border-color-primary);
  border-radius: .35rem; display: grid; place-items: center; color: var(--body-text-color-subdued); }
.zoom { position: relative; display: block; cursor: zoom-in; }
.zoom input { position: absolute; inset: 0; opacity: 0; width: 100%; height: 100%; margin: 0;
  cursor: inherit; }
.zoom input:focus-visible + img { outline: 2px solid var(--color-accent); outline-offset: 2px; }
.zoom input:checked { position: fixed; z-index: 1001; cursor: zoom-out; }
.zoom input:checked + img { position: fixed; inset: 0; z-index: 1000; margin: auto; width: 96vw; height: 92vh;
  object-fit: contain; border-radius: 0; background: #111; box-shadow: 0 0 0 100vmax #111; }
.legend { display: flex; align-items: center; gap: .5rem; margin: .5rem 0; font-size: .85rem; }
.legend span { white-space: nowrap; }
.legend i { flex: 0 1 12rem; height: .7rem; border-radius: .35rem; }
.scroll { overflow-x: auto; }
.scroll table { border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll tr { border: 0 !important; }
.scroll table th, .scroll table td { padding: .25rem .6rem !important; text-align: left; white-space: nowrap;
  border-width: 0 0 1px !important; border-bottom-color: var(--border-color-primary) !important; }
.scroll td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 14rem; }
.scroll tr.bad td:nth-child(2) { font-weight: 700; box-shadow: inset .25rem 0 #c62828; }
.scroll tr.good td:nth-child(2) { box-shadow: inset .25rem 0 #2e7d32; }
#sample input { text-overflow: ellipsis; padding-right: 1.6rem; }
@media (max-width: 640px) {
  .verdict { font-size: 1.35rem; }
  #one-part, #one-part > .column { display: flex; flex-flow: column nowrap; }
  #one-part > .column { display: contents; }
  #verdict { order: 1; }
  #controls { order: 2; }
  #maps { order: 3; }
}
.save { display: inline-block; padding: .45rem .9rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem; }
"""
