"""HTML fragments of the page: the verdict, a tile per camera, and the table of many parts.

Images are embedded as data URIs, so that no URL refers to a file of the server.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from idif.inference.predict import Prediction, overlay, photograph, rebuilt_picture
from idif.visualization.data_uri import webp_data_uri
from idif.visualization.heatmap import color_bar_css
from idif.visualization.text import as_sentence

IMAGE_SIDE = 420
"""Longest side of an image in pixels."""
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
) -> str:
    """Score and decision of a part.

    Args:
        prediction: with the cameras that are switched on.
        threshold: of the slider; scores from it on are anomalous.
        run_threshold: chosen by evaluation; None if there is none.
        label: of a test sample; None for an upload.
        otherwise: a sentence if the evaluation was one with other settings.
    """
    if prediction.score is None:
        words = "No score: none of the selected cameras has a readable photograph."
        return note(words) + "".join(map(alert, prediction.problems))
    bad = prediction.score >= threshold
    kind, word = ("bad", "Anomalous") if bad else ("good", "Normal")
    rule = f"Anomalous from {number_text(threshold)} on"
    if run_threshold is None:
        rule += "; the run has no threshold yet (idif eval chooses one)"
    elif not np.isclose(run_threshold, threshold, rtol=1e-3):
        rule += f"; the run's threshold is {number_text(run_threshold)}"
    lines = [
        f'<p class="verdict {kind}"><strong>{word}</strong>'
        f" <small>score</small> <span>{number_text(prediction.score)}</span></p>",
        f'<p class="note">{escape(rule)}; score from {_cameras(prediction)}.</p>',
    ]
    if label is not None:
        lines.append(note(f"Label of the test sample: {label}."))
    if prediction.part.probabilities:
        lines.append(_probabilities(prediction.part.category, prediction.part.probabilities))
    if otherwise is not None:
        lines.append(note(as_sentence(otherwise)))
    return f'<div aria-live="polite">{"".join(lines)}</div>' + "".join(map(alert, prediction.problems))


def _cameras(prediction: Prediction) -> str:
    present, total = int(prediction.present.sum()), len(prediction.present)
    if total == 1:
        return "1 camera"
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


def tiles(
    prediction: Prediction,
    names: Mapping[int, str],
    scale: tuple[float, float],
    opacity: float,
    cameras: Sequence[int],
    given: Sequence[int],
) -> str:
    """An image per camera: the anomaly map over the gray photograph; before it the photograph and its
    reconstruction, if the method gives one.

    Args:
        prediction: with the cameras that are switched on.
        names: camera number of each slot -> its name, and that of an uploaded file.
        scale: (low, high) of the color scale.
        opacity: of the maps, 0..1.
        cameras: that are switched on.
        given: cameras with a photograph, switched on or not.
    """
    shown = []
    for slot, (number, name) in enumerate(names.items()):
        path = prediction.part.images[slot]
        if path is None or not prediction.present[slot]:
            why = "switched off" if number not in cameras and number in given else "no photograph"
            shown.append(
                f'<figure class="off"><div>{why}</div><figcaption>{escape(name)}</figcaption></figure>'
            )
            continue
        score = number_text(float(prediction.view_scores[slot]))
        caption = f"<figcaption><span>{escape(name)}</span> <b>{score}</b></figcaption></figure>"
        if prediction.maps is None:
            shown.append(f'<figure class="off"><div>no map</div>{caption}')
            continue
        image = webp_data_uri(
            overlay(path, prediction.maps[slot], scale, prediction.crop_from, IMAGE_SIDE, opacity)
        )
        if prediction.rebuilt is not None:
            photo = photograph(path, IMAGE_SIDE)
            again = rebuilt_picture(prediction.rebuilt[slot], photo.shape[:2], prediction.crop_from)
            for kind, picture in (("Photograph", photo), ("Reconstruction", again)):
                shown.append(
                    f'<figure><img src="{webp_data_uri(picture)}" alt="{kind} of camera {number}">'
                    f"<figcaption>C{number} {kind.lower()}</figcaption></figure>"
                )
        shown.append(
            f'<figure><img src="{image}" alt="Anomaly map of camera {number}, score {score}">{caption}'
        )
    legend = (
        f'<p class="legend"><span>{number_text(scale[0], 3)}</span>'
        f'<i style="background:{color_bar_css()}" role="img" aria-label="color scale from low to high"></i>'
        f"<span>{number_text(scale[1], 3)}</span></p>"
    )
    return f'<div class="tiles">{"".join(shown)}</div>{legend}'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], csv_text: str, file_name: str) -> str:
    """The first rows, and a link that saves all rows under a file name."""
    link = "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv_text.encode()).decode("ascii")
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows[:ROWS_SHOWN]
    )
    more = len(rows) - ROWS_SHOWN
    rest = note(f"{more} more rows are in the CSV file.") if more > 0 else ""
    parts = "1 part" if len(rows) == 1 else f"{len(rows)} parts"
    return (
        f'<p><a class="save" download="{escape(file_name)}" href="{link}">Save {parts} as CSV</a></p>'
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>{rest}'
    )


STYLE = """
button[role="tab"].selected { color: var(--body-text-color); }
.verdict { font-size: 1.6rem; margin: 0; padding: .5rem .9rem; border-radius: .5rem; display: flex; gap: 1rem;
  justify-content: space-between; border-left: .5rem solid; background: var(--background-fill-secondary); }
.verdict.bad { border-color: #c62828; } .verdict.good { border-color: #2e7d32; }
.verdict small { margin-left: auto; align-self: center; font-size: .9rem; opacity: .8; }
.verdict span { font-variant-numeric: tabular-nums; }
.note { opacity: .8; margin: .35rem 0; }
.caveats { opacity: .8; margin: .2rem 0 0; padding-left: 1.1rem; font-size: .9rem; list-style: disc; }
.alert { border-left: .25rem solid #e08a00; padding: .35rem .7rem; margin: .35rem 0;
  background: var(--background-fill-secondary); }
.tiles { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); }
.tiles figure { margin: 0; }
.tiles img { width: 100%; height: auto; border-radius: .35rem; display: block; }
.tiles .off div { aspect-ratio: 1; border: 1px dashed var(--border-color-primary); border-radius: .35rem;
  display: grid; place-items: center; color: var(--body-text-color-subdued); }
.tiles figcaption { display: flex; justify-content: space-between; padding: .2rem .1rem;
  gap: .4rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.legend { display: flex; align-items: center; gap: .5rem; margin: .5rem 0; font-size: .85rem; }
.legend i { flex: 0 1 12rem; height: .7rem; border-radius: .35rem; }
.scroll { overflow-x: auto; }
.scroll table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll th, .scroll td { padding: .25rem .6rem !important; text-align: left; white-space: nowrap;
  border: solid var(--border-color-primary) !important; border-width: 0 0 1px !important; }
.save { display: inline-block; padding: .45rem .9rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem; }
"""
