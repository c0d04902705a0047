"""Turn a folder of results into a report: figures/*.png, one report.html that holds them, and tables in Markdown.

The page needs nothing else: no network, no script, light or dark as the reader's system is.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from oscillab.io import atomic_write
from oscillab.methods import method
from oscillab.recording.recording import Recording
from oscillab.study.table import MAIN, QUANTIZED, claims, compare_with_paper, groups, spread
from oscillab.study.text import HEADINGS, cell, width

STYLE = """
:root { color-scheme: light dark; --ink: #222; --page: #fdfdfd; --line: #ccc; --quiet: #666 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --page: #17181a; --line: #444; --quiet: #a0a0a0 } }
body { color: var(--ink); background: var(--page); font: 16px/1.5 system-ui, sans-serif; max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem }
figure { margin: 1.5rem 0; overflow-x: auto } figcaption { color: var(--quiet); max-width: 46rem }
img { max-width: 100%; box-sizing: border-box; background: white; padding: .6rem; border-radius: .4rem;
  border: 1px solid var(--line) }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .55rem; font-size: .92rem; border-bottom: 1px solid var(--line); text-align: right }
td.word { text-align: left }
pre { overflow-x: auto; font-size: .85rem; color: var(--quiet) }
"""
CAVEAT = (
    "<p>The same seed on two machines, or with two versions of a library, ends as far apart as two seeds on one: "
    "sums end in other digits, and a weight at an edge takes them further. Compare means over seeds, and differences "
    "within this study.</p>"
)
CLAIMS = (
    "Differences in mAP (0..1) between two methods of the same seed: their mean, their standard deviation over seeds, "
    "the p of a two-sided paired t test, and whether every seed agrees that the first method is better (yes), worse "
    "(no), or the seeds disagree (unclear)."
)
COMPARED = (
    "Points of mAP (0..100). The paper trains 100 epochs on COCO 2017 at 640 pixels; where ours is another data set "
    "or a shorter training, mAP differs and the gains on LSQ are what can be compared."
)
WORDS = (
    "Quantized networks trained with LSQ, before and after the remedies of arXiv 2311.05109. <em>Oscillating</em>: share of "
    "weights whose oscillation frequency ends above 0.005 (momentum 0.01). <em>Flips/step</em>: share of weights that change "
    "their integer state in one step. QC leaves the integer states alone, so its rows repeat them. <em>Ends</em>: the bits of the "
    "first and the last layers. <em>Near an edge</em>: weights nearer than 0.05 bins to a bin edge, median over layers (10 % where "
    "spread evenly). <em>Flips by the edge</em>: made by a step size that moved, of weights that stood still. mAP is COCO's "
    "measure, 0.50 to 0.95, on the images that the study was given."
)
TRAINED = [name for name in MAIN if "+" not in name]  # FP32 and PTQ first
RECORDED = ("lsq", "ema")
PLACE = re.compile(r"(<!-- (results|oscillation): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PLACES = {  # kind of a marked place: its methods, from left to right, and its scores with what a row's name says of them
    "results": ([*TRAINED, *(f"{name}+qc" for name in TRAINED[2:])], {"map": "", "mask_map": " masks"}),
    "oscillation": (TRAINED[2:], {"oscillating_share": ""}),
}


def write(source: Path | str) -> Path:
    """Write report.html, and figures/*.png next to it, and return its path.

    `source`: the folder of a study or of one run, or a recording, whose report goes into a folder of its name. Raises
    ValueError when it is none of them, or when the table lacks a column.
    """
    from oscillab.study import figures  # here, since matplotlib and seaborn load for seconds

    source, table, notes = Path(source), None, {}
    folder = source.with_suffix("") if source.suffix == ".npz" else source
    if (source / "table.csv").is_file():
        table = pd.read_csv(source / "table.csv")
        notes = {path.parent.name: json.loads(path.read_text()) for path in sorted(source.glob("*/run.json"))}
        both = [run for run in sorted(source.iterdir()) if all((run / f"{name}.npz").is_file() for name in RECORDED)]
        runs = {run.name: {name: Recording.open(run / f"{name}.npz") for name in RECORDED} for run in both}
        found = figures.report_figures(table, runs)
    else:
        files = [source] if source.suffix == ".npz" else [source / f"{name}.npz" for name in RECORDED]
        if not (files := [path for path in files if path.is_file()]):
            raise ValueError(f"{source} holds no table.csv of a study and no recording (lsq.npz) of a run")
        found = figures.run_figures({path.stem: Recording.open(path) for path in files})
        about = files[0].with_name("run.json")
        notes = {source.name: json.loads(about.read_text())} if about.is_file() else {}
    drawn = {name: (figure.png(), caption) for name, (figure, caption) in found.items()}
    for name, (image, _) in drawn.items():
        with atomic_write(folder / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(image)
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(_page(folder.name, table, drawn, notes), encoding="utf-8")
    return folder / "report.html"


def verdict(table: pd.DataFrame) -> str:
    """Say in a sentence which method is best at each schedule and bit width, by its mean over seeds, and its gain on LSQ.

    The untrained network (PTQ) is left out. Raises ValueError for a table without a study's columns.
    """
    parts: dict[str, list[str]] = {}
    for group in groups(table):
        rows = group.rows(table)
        means = rows[rows["method"].isin(QUANTIZED[1:])].groupby("method")["map"].mean()
        best = str(means.idxmax())
        gain = f", {means[best] - means['lsq']:+.3f} on LSQ" if "lsq" in means and best != "lsq" else ""
        where = f"{group.network} at the {group.schedule} rate, {group.steps:,} steps"
        parts.setdefault(where, []).append(f"{method(best).label} at {group.width} bit ({means[best]:.3f}{gain})")
    seeds = table.loc[table["steps"] > 0, "seed"].nunique()
    found = "; ".join(f"{where}: {', '.join(each)}" for where, each in parts.items())
    return f"Best mAP (mean of {seeds} seeds): {found}." if seeds > 1 else f"Best mAP (one seed): {found}."


def _page(
    name: str, table: pd.DataFrame | None, drawn: Mapping[str, tuple[bytes, str]], notes: Mapping[str, Any]
) -> str:
    """Return the HTML of a report: headline table, figures (PNG bytes, caption) by name, and how each run was made."""
    parts = [
        f"<h1>oscillab: {escape(name)}</h1>",
        *([] if table is None else [f"<p><strong>{escape(verdict(table))}</strong></p>"]),
        *(_figure(*each) for each in list(drawn.values())[:1]),
        f"<p>{WORDS}</p>",
        *([] if table is None else _sections(table)),
        *(_figure(*each) for each in list(drawn.values())[1:]),
        "<h2>How it was made</h2>",
        *(
            f"<details><summary>{escape(run)}</summary><pre>{escape(json.dumps(note, indent=1))}</pre></details>"
            for run, note in notes.items()
        ),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    head += f"<title>oscillab: {escape(name)}</title>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _sections(table: pd.DataFrame) -> list[str]:
    """Return the table, with paired comparisons where it has several seeds, and our numbers next to the paper's."""
    compared, ours = claims(table), compare_with_paper(table)
    parts = [CAVEAT, _html_table(table.dropna(axis=1, how="all"))]
    if not compared.empty and compared["seeds"].max() > 1:
        parts += ["<h2>Which differences hold</h2>", f"<p>{CLAIMS}</p>", _html_table(compared)]
    if not ours.empty:
        parts += ["<h2>Compared with the paper</h2>", f"<p>{COMPARED}</p>", _html_table(ours)]
    return parts


def _figure(image: bytes, caption: str) -> str:
    text, source = escape(caption), b64encode(image).decode()
    return f'<figure><img alt="{text}" src="data:image/png;base64,{source}"><figcaption>{text}</figcaption></figure>'


def _html_table(table: pd.DataFrame) -> str:
    """Return a data frame as an HTML table, methods by their labels, words to the left."""
    heads = "".join(f"<th>{escape(HEADINGS.get(name, name))}</th>" for name in table)
    rows = []
    for row in table.to_dict("records"):
        named = row | {name: method(row[name]).label for name in ("method", "reference") if name in row}
        kinds = {name: ' class="word"' * isinstance(value, str) for name, value in named.items()}
        rows.append("".join(f"<td{kinds[name]}>{escape(cell(str(name), v))}</td>" for name, v in named.items()))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def fill(text: str, root: Path | str) -> str:
    """Fill every marked place of a Markdown text from the results folder, below `root`, that it names.

    Places are `<!-- results: data/results/quick -->` to `<!-- end -->`, for mAP, and `<!-- oscillation: ... -->` for the share
    of weights that oscillate. Raises ValueError when a named folder holds no table.csv.
    """

    def table_of(match: re.Match[str]) -> str:
        path = Path(root) / match[3] / "table.csv"
        if not path.is_file():
            raise ValueError(f"the text names {match[3]}, which holds no table.csv below {root}")
        return f"{match[1]}{markdown(pd.read_csv(path), match[2])}\n{match[4]}"

    return PLACE.sub(table_of, text)


def markdown(table: pd.DataFrame, kind: str = "results") -> str:
    """Return a study's table in Markdown: a row for each network and width, a column for each method that was run.

    `kind`: "results" (mAP) or "oscillation". Cells are means over seeds, followed by the standard deviation of several.
    """
    allowed, scores = PLACES[kind]
    methods = [name for name in allowed if name in set(table["method"])]
    rows = [["network", "bits", "rate", *(method(name).label for name in methods)]]
    rows.append(["---", "---:", "---", *["---:"] * len(methods)])
    keys = ["steps", "schedule", "bits", "ends_bits"]
    for network, of_network in table.groupby("network", sort=False):
        is_float = of_network["method"] == "fp32"  # its result stands in every width's row
        for score in (name for name in scores if name in of_network and of_network[name].notna().any()):
            for (_, schedule, *bits), of_width in of_network[of_network["steps"] > 0].groupby(keys, sort=False):
                same = of_network["steps"].eq(0) & (is_float | of_network[keys[2:]].eq(bits).all(axis=1))
                both = pd.concat([of_network[same], of_width])
                cells = [spread(score, both[score][both["method"] == name]) for name in methods]
                rows.append([f"{network}{scores[score]}", width(*bits), schedule, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
