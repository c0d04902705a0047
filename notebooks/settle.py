"""Execute notebooks in place, and settle what would differ on the next run.

    python notebooks/settle.py notebooks/*.ipynb

Settled are execution times, progress bars, widget ids, the Python version and the memory addresses of objects, so that
a second run leaves `git diff` quiet wherever the notebook's own numbers are deterministic. A notebook whose execution
fails stays as it was.
"""

import os
import re
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums depend on the number of threads in their last digits

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from oscillab.io import atomic_write

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
TIMES = re.compile(r"\[?\d+:\d\d(:\d\d)?(<|&lt;)[^\]\"]*\]?")  # tqdm's [00:12<00:03, 3.20it/s]
ADDRESS = re.compile(r"0x[0-9a-f]{8,}")
SECONDS_PER_CELL = 300


def main(paths):
    """The exit status: 0, or 1 when a notebook failed."""
    failures = [str(path) for path in map(Path, paths) if not settle_file(path)]
    return 1 if failures else 0


def settle_file(path):
    """Whether the notebook at `path` ran to its end; then it is executed and settled in place."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=SECONDS_PER_CELL, resources=where, record_timing=False
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        sys.stderr.write(f"{path}: {str(error).strip().splitlines()[-1]}; the file is unchanged\n")
        return False
    with atomic_write(path) as temporary:
        temporary.write_text(settled(notebook), encoding="utf-8")
    sys.stderr.write(f"{path}: {path.stat().st_size / 1024:.0f} KB\n")
    return True


def settled(notebook):
    """The text of an executed notebook without what would differ on the next run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [settle_output(output) for output in merge_streams(cell.outputs)]
    drop_unseen(notebook)
    for model in widget_state(notebook).values():
        model["state"] = {name: value for name, value in model["state"].items() if value is not None}  # the defaults
    notebook.metadata.kernelspec = KERNEL
    notebook.metadata.language_info = {"name": "python"}
    return renumber(nbformat.writes(notebook), widget_ids(notebook))


def merge_streams(outputs):
    """The outputs with neighbouring pieces of one stream joined, as their split depends on timing."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if output.output_type == "stream" and last and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def settle_output(output):
    """The output with progress bars at their last state, and without times and addresses."""
    if output.output_type == "stream":
        output.text = quiet("\n".join(line.split("\r")[-1] for line in output.text.split("\n")))
    elif "data" in output and "text/plain" in output.data:
        output.data["text/plain"] = quiet(output.data["text/plain"])
    return output


def quiet(text):
    """The text without times and addresses.

    >>> quiet("100%|##| 4/4 [00:12<00:00, 3.2it/s] at 0x7f3a12345678")
    '100%|##| 4/4 at 0x0'
    """
    return ADDRESS.sub("0x0", re.sub(r" ?" + TIMES.pattern, "", text))


def widget_ids(notebook):
    """The ids of all widgets in the order in which they are shown or were made."""
    return list(dict.fromkeys([*shown_ids(notebook), *widget_state(notebook)]))


def shown_ids(notebook):
    """The ids of the widgets that outputs show."""
    return [
        output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]


def drop_unseen(notebook):
    """Nothing; the stored state loses every widget that is no part of one that is shown."""
    state = widget_state(notebook)
    parts = {name: re.findall(r"IPY_MODEL_([0-9a-f]{32})", str(model["state"])) for name, model in state.items()}
    wanted = shown_ids(notebook)
    for name in wanted:  # grows while it is walked
        wanted += [part for part in parts.get(name, []) if part not in wanted]
    for name in set(state) - set(wanted):
        del state[name]


def widget_state(notebook):
    """The stored models of the notebook's widgets, by id."""
    return notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})


def renumber(text, ids):
    """The notebook's text with every widget id replaced by its number, in 32 hexadecimal digits, in their order."""
    for number, name in enumerate(ids, start=1):
        text = text.replace(name, f"{number:032x}")
    if ids:
        text = TIMES.sub("", text)  # bars that are widgets
    return nbformat.writes(nbformat.reads(text, as_version=4), indent=1) + "\n"  # sorts the new ids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
