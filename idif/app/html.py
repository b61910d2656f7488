"""What the page shows, as HTML: the verdict, a tile for every camera, and a table of many parts.

Pictures travel inside the page as data, so that no address names a file of the machine.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from idif.app.category_match import CategoryDistance
from idif.inference.predict import Prediction, overlay
from idif.visualization.heatmap import Pixels, color_bar

PICTURE = 420
"""Longest side of a picture in pixels."""
ROWS_SHOWN = 200
_CLEAR = 0.8
"""A category looks clearly nearest where its distance is below this share of the next one's."""


def trouble(message: str) -> str:
    """A message that a screen reader speaks at once."""
    return f'<p class="trouble" role="alert">{escape(message)}</p>'


def note(message: str) -> str:
    """A quiet remark."""
    return f'<p class="note">{escape(message)}</p>'


def heading(title: str, notes: Sequence[str]) -> str:
    """The page's name, and what a visitor must know."""
    items = "".join(f"<li>{escape(text[:1].upper() + text[1:])}</li>" for text in notes)
    return f"<h1>{escape(title)}</h1>" + (f'<ul class="caveats">{items}</ul>' if items else "")


def verdict(
    judged: Prediction,
    threshold: float,
    own: float | None,
    truth: str | None,
    looks: Sequence[CategoryDistance],
) -> str:
    """Score and decision of a part.

    Args:
        judged: by the cameras that are on.
        threshold: the slider's: anomalous from it on.
        own: the run's; None where it has none.
        truth: what a test sample is labelled; None for an upload.
        looks: categories by likeness.
    """
    if judged.score is None:
        words = "No camera that is on has a photograph that can be read, so there is no score."
        return note(words) + "".join(map(trouble, judged.problems))
    bad = judged.score >= threshold
    kind, word = ("bad", "Anomalous") if bad else ("good", "Normal")
    told = f"anomalous from {threshold:.4g} on"
    if own is None:
        told += "; the run itself has no threshold yet (idif eval chooses one)"
    elif not np.isclose(own, threshold, rtol=1e-3):
        told += f"; the run's own threshold is {own:.4g}"
    lines = [
        f'<p class="verdict {kind}"><strong>{word}</strong> <span>{judged.score:.4g}</span></p>',
        f'<p class="note">{escape(told)}; judged by {_cameras(judged)}</p>',
    ]
    if truth is not None:
        lines.append(note(f"Its label: {truth}."))
    if looks:
        lines.append(_likeness(judged.part.category, looks))
    return f'<div aria-live="polite">{"".join(lines)}</div>' + "".join(map(trouble, judged.problems))


def _cameras(judged: Prediction) -> str:
    there, all_of_them = int(judged.present.sum()), len(judged.present)
    return f"all {all_of_them} cameras" if there == all_of_them else f"{there} of {all_of_them} cameras"


def _likeness(category: str, looks: Sequence[CategoryDistance]) -> str:
    first = looks[0]
    if not np.isfinite(first.distance):
        return note("No stored sample has a camera in common with this part.")
    words = f"Looks like {first.category} (distance {first.distance:.3f}"
    if len(looks) > 1:
        words += f"; next {looks[1].category}, {looks[1].distance:.3f}"
    words += ")."
    if first.category != category and first.distance < _CLEAR * looks[1].distance:
        return trouble(f"{words} It is judged as {category}: is that the right category?")
    return note(words)


def tiles(
    judged: Prediction,
    view_numbers: Sequence[int],
    scale: tuple[float, float],
    opacity: float,
    on: Sequence[int],
) -> str:
    """A picture for every camera: the anomaly map over the photograph in grey."""
    shown = []
    for slot, number in enumerate(view_numbers):
        path, there = judged.part.images[slot], judged.present[slot]
        if path is None or not there:
            why = "switched off" if number not in on else "no photograph"
            shown.append(f'<figure class="off"><div>{why}</div><figcaption>C{number}</figcaption></figure>')
            continue
        score = f"{judged.view_scores[slot]:.4g}"
        if judged.maps is None:
            shown.append(f'<figure class="off"><div>no map</div><figcaption>C{number} <b>{score}</b></figcaption></figure>')
            continue
        picture = _data_uri(overlay(path, judged.maps[slot], scale, PICTURE, opacity))
        shown.append(
            f'<figure><img src="{picture}" alt="Anomaly map of camera {number}, score {score}">'
            f"<figcaption>C{number} <b>{score}</b></figcaption></figure>"
        )
    legend = (
        f'<p class="legend"><span>{scale[0]:.3g}</span>'
        f'<i style="background:{color_bar()}" role="img" aria-label="colors from low to high"></i>'
        f"<span>{scale[1]:.3g}</span></p>"
    )
    return f'<div class="tiles">{"".join(shown)}</div>{legend}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], csv_text: str) -> str:
    """The first rows, and a link that saves all of them."""
    link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv_text.encode()).decode("ascii")
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows[:ROWS_SHOWN]
    )
    more = len(rows) - ROWS_SHOWN
    rest = note(f"{more} more rows are in the file.") if more > 0 else ""
    parts = "1 part" if len(rows) == 1 else f"{len(rows)} parts"
    return (
        f'<p><a class="save" download="idif.csv" href="{link}">Save {parts} as CSV</a></p>'
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>{rest}'
    )


def _data_uri(picture: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=82, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


STYLE = """
button[role="tab"].selected { color: var(--body-text-color); }
.verdict { font-size: 1.6rem; margin: 0; padding: .5rem .9rem; border-radius: .5rem; display: flex; gap: 1rem;
  justify-content: space-between; border-left: .5rem solid; background: var(--background-fill-secondary); }
.verdict.bad { border-color: #c62828; } .verdict.good { border-color: #2e7d32; }
.verdict span { font-variant-numeric: tabular-nums; }
.note { opacity: .8; margin: .35rem 0; }
.caveats { opacity: .8; margin: .2rem 0 0; padding-left: 1.1rem; font-size: .9rem; list-style: disc; }
.trouble { border-left: .25rem solid #e08a00; padding: .35rem .7rem; margin: .35rem 0;
  background: var(--background-fill-secondary); }
.tiles { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); }
.tiles figure { margin: 0; }
.tiles img { width: 100%; height: auto; border-radius: .35rem; display: block; }
.tiles .off div { aspect-ratio: 1; border: 1px dashed var(--border-color-primary); border-radius: .35rem;
  display: grid; place-items: center; color: var(--body-text-color-subdued); }
.tiles figcaption { display: flex; justify-content: space-between; padding: .2rem .1rem;
  font-variant-numeric: tabular-nums; }
.legend { display: flex; align-items: center; gap: .5rem; margin: .5rem 0; font-size: .85rem; }
.legend i { flex: 0 1 12rem; height: .7rem; border-radius: .35rem; }
.scroll { overflow-x: auto; }
.scroll table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll th, .scroll td { padding: .25rem .6rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--border-color-primary); }
.save { display: inline-block; padding: .45rem .9rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem; }
"""
