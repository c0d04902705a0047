"""Pages of the notebooks that need neither a kernel nor a network: build/html.

    python notebooks/pages.py

A page is one file: its style, light or dark as the reader's system is, and every stored picture, without a script. Where
a widget stands in the notebook, its page shows the picture that the widget last drew.
"""

import re
import sys
from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

FOLDER = Path(__file__).resolve().parent
OUT = FOLDER.parent / "build" / "html"
LARGEST = 500  # kilobytes
VIEW = "application/vnd.jupyter.widget-view+json"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def main(folder=FOLDER, out=OUT):
    """The exit status: 0, or 1 when a page is larger than `LARGEST`; writes a page for every notebook of `folder`."""
    out.mkdir(parents=True, exist_ok=True)
    too_large = 0
    for path in sorted(folder.glob("*.ipynb")):
        text = page(nbformat.read(path, as_version=4))
        (out / f"{path.stem}.html").write_text(text, encoding="utf-8")
        size = len(text.encode()) / 1024
        too_large += size > LARGEST
        note = f": a page may have {LARGEST} KB" if size > LARGEST else ""
        sys.stderr.write(f"{out.name}/{path.stem}.html: {size:.0f} KB{note}\n")
    return int(too_large > 0)


def page(notebook):
    """The HTML of a notebook (changed in place) as it is stored, nothing run."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)
        if cell.cell_type == "code" and cell.source:
            cell.metadata["alt"] = f"what `{cell.source.splitlines()[-1].strip()}` shows"
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    body = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', body)
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    return PAGE.format(title=escape(title), style=style(), body=body)


def style():
    """The style of a page: page.css, and the colours of code on light and on dark paper."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{css}"


if __name__ == "__main__":
    sys.exit(main())
