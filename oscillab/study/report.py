"""What came out of a study, on one page that can be mailed?

`write` turns a folder of results (table.csv, run JSONs, recordings) into figures/*.png and one report.html that holds
its figures and needs nothing else: no network, no script, light or dark as the reader's system is.
"""

import json
from base64 import b64encode
from html import escape
from pathlib import Path

import pandas as pd

from oscillab.io import atomic_write
from oscillab.plot.style import label_of
from oscillab.plot.text import HEADINGS, cell, lines, table_text
from oscillab.recording.recording import Recording

from .beside import beside
from .figures.album import figures
from .paired import claims

__all__ = ["figures", "lines", "page", "table_text", "write"]

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fdfdfd; --line: #ccc; --quiet: #666 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #17181a; --line: #444; --quiet: #a0a0a0 } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem }
figure { margin: 1.5rem 0; overflow-x: auto } figcaption { color: var(--quiet); max-width: 46rem }
img { max-width: 100%; box-sizing: border-box; background: white; padding: .6rem; border-radius: .4rem;
  border: 1px solid var(--line) }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .55rem; font-size: .92rem; border-bottom: 1px solid var(--line); text-align: right }
td.word { text-align: left }
pre { overflow-x: auto; font-size: .85rem; color: var(--quiet) }
"""


def write(folder):
    """The path of the report.html that now holds the results of `folder`; figures/*.png are written beside it.

    Raises ValueError when there is no table.csv, or when it lacks a column.
    """
    folder = Path(folder)
    if not (folder / "table.csv").is_file():
        raise ValueError(f"{folder} holds no table.csv; give the folder that a study has written")
    table = pd.read_csv(folder / "table.csv")
    drawn = {name: (figure.png(), caption) for name, (figure, caption) in figures(table, runs(folder)).items()}
    for name, (image, _) in drawn.items():
        with atomic_write(folder / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(image)
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(page(folder.name, table, drawn, provenance(folder)), encoding="utf-8")
    return folder / "report.html"


def runs(folder):
    """The recordings of every run below `folder`: run name -> method -> Recording, for those that have both."""
    found = {}
    for lsq in sorted(Path(folder).glob("*/lsq.npz")):
        if lsq.with_name("ema.npz").is_file():
            found[lsq.parent.name] = {name: Recording.open(lsq.with_name(f"{name}.npz")) for name in ("lsq", "ema")}
    return found


def provenance(folder):
    """The run.json of every run below `folder`, by run name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*/run.json"))}


def page(name, table, drawn, notes):
    """The HTML of a report: headline table, figures (PNG bytes, caption) by name, and how each run was made."""
    parts = [
        f"<h1>oscillab: {escape(name)}</h1>",
        "<p>Quantized networks trained with LSQ, before and after the remedies of arXiv 2311.05109. "
        "<em>Oscillating</em>: share of weights whose oscillation frequency ends above 0.005 (momentum 0.01). "
        "<em>Flips/step</em>: share of weights that change their integer state in one step. QC leaves the integer "
        "states alone, so its rows repeat them. <em>Ends</em>: the bits of the first and the last layers. mAP is COCO's measure, "
        "0.50 to 0.95, on the pictures that the study was given.</p>",
        html_table(table),
        *claims_section(table),
        *paper_section(table),
        *(html_figure(*entry) for entry in drawn.values()),
        "<h2>How it was made</h2>",
        *(f"<h3>{escape(run)}</h3><pre>{escape(json.dumps(note, indent=1))}</pre>" for run, note in notes.items()),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    title = f"<title>oscillab: {escape(name)}</title>"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}{title}</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def claims_section(table):
    """The paired comparisons of methods, as HTML parts; none where the table has a single seed or nothing to compare."""
    compared = claims(table)
    if compared.empty or compared["seeds"].max() < 2:
        return []
    text = (
        "Differences in mAP (0..1) between two methods of the same seed: their mean, their standard deviation over seeds, "
        "the p of a two-sided paired t test, and whether every seed agrees that the first method is better (yes), worse "
        "(no), or the seeds disagree (unclear)."
    )
    return ["<h2>Which differences hold</h2>", f"<p>{text}</p>", html_table(compared)]


def paper_section(table):
    """Our numbers beside the paper's, as HTML parts; none where they have no method in common."""
    compared = beside(table)
    if compared.empty:
        return []
    text = (
        "Points of mAP (0..100). The paper trains 100 epochs on COCO 2017 at 640 pixels; where ours is another data set "
        "or a shorter training, mAP differs and the gains on LSQ are what can be compared."
    )
    return ["<h2>Beside the paper</h2>", f"<p>{text}</p>", html_table(compared)]


def html_table(table):
    """A data frame as an HTML table, methods by their printed names."""
    heads = "".join(f"<th>{escape(HEADINGS.get(name, name))}</th>" for name in table)
    rows = []
    for row in table.to_dict("records"):
        named = row | {name: label_of(row[name]) for name in ("method", "reference") if name in row}
        rows.append("".join(html_cell(name, value) for name, value in named.items()))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def html_cell(name, value):
    """One table cell; words to the left."""
    kind = ' class="word"' if isinstance(value, str) else ""
    return f"<td{kind}>{escape(cell(name, value))}</td>"


def html_figure(image, caption):
    """A figure with its picture inside the page."""
    source = b64encode(image).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
