"""The report of a folder of results: one page that needs nothing else."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import pandas as pd
import pytest

from oscillab.study import figures, report
from oscillab.study.report import fill, markdown, verdict


class Tags(HTMLParser):
    """Collects start tags and checks that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.starts, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.starts.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_recording, make_table):
    """A folder as a study writes it: a 3-bit run with recordings, a 4-bit run without."""
    folder = tmp_path_factory.mktemp("quick")
    make_table().to_csv(folder / "table.csv", index=False)
    run = folder / "yolov5n-3bit-constant-seed0"
    make_recording().save(run / "lsq.npz")
    make_recording(speed=0.01).save(run / "ema.npz")
    (run / "run.json").write_text(json.dumps({"hardware": "a <processor> & more", "seed": 0}))
    return folder


def test_the_page(folder, table):
    """Oracle: the PNG files, byte for byte, and no other address; the table's means and escapes; the verdict first."""
    page = report.write(folder).read_text(encoding="utf-8")
    images = [a["src"] for tag, a in Tags(page).starts if tag == "img"]
    inside = {b64decode(source.removeprefix("data:image/png;base64,")) for source in images}
    beside = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert inside == beside and len(images) == len(beside) == 9
    assert (folder / "figures" / "yolov5n-3bit-constant-seed0-before-after.png").is_file()
    tags = Tags(page)
    assert not tags.open
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags.starts}
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(""", page)
    assert "prefers-color-scheme: dark" in page and "color-scheme: light dark" in page
    # EMA+QC of seed 1 has 0.510, a share of 0.25 reads 25.0 %
    assert "<td>0.510</td>" in page and "25.0 %" in page and ">EMA+QC</td>" in page
    assert "a &lt;processor&gt; &amp; more" in page and "The same seed on two machines" in page
    sentence = "yolov5n at the constant rate, 500 steps: EMA+QC at 4 bit (0.505, +0.200 on LSQ), EMA+QC at 3 bit (0.505, +0.200"
    assert sentence in verdict(table) and verdict(table).startswith("Best mAP (mean of 2 seeds): ")
    assert page.index(sentence) < page.index("<figure>") < page.index("<table>") < page.index("<details>")
    official = table[table["method"] != "ema+qc"].assign(schedule="official")
    assert "official rate, 500 steps: LSQ+QC at 4 bit (0.455" in verdict(official)
    assert report.write(folder).read_text(encoding="utf-8") == page


def test_a_run_and_a_recording_have_reports(folder, tmp_path, make_recording, live, table):
    """Oracle: figures without mAP beside a run or a recording; no table, no report; no 8-bit layer is chosen."""
    run = folder / "yolov5n-3bit-constant-seed0"
    page = report.write(run).read_text(encoding="utf-8")
    assert page.count("<img") == len(list((run / "figures").glob("*.png"))) == 7 and "a &lt;processor&gt;" in page
    alone = report.write(make_recording().save(tmp_path / "mine.npz"))
    assert alone == tmp_path / "mine" / "report.html" and alone.read_text(encoding="utf-8").count("<img") == 7
    with pytest.raises(ValueError, match="holds no table.csv"):
        report.write(tmp_path)
    recording = make_recording()
    recording["frequency"][recording.weights_of("first")] = 1
    assert figures.busiest_layer(recording) == figures.busiest_layer(live) != "first"
    assert list(figures.report_figures(table, {})) == ["map-by-method"]
    trained = table[table["steps"] > 0]
    longer = pd.concat([table, trained.assign(steps=2000), trained.assign(method="ema_1")])
    names = {"map-by-method", "yolov5n-regimes", *(f"yolov5n-{b}bit-constant-500steps-gains" for b in (3, 4))}
    assert set(figures.report_figures(longer, {})) == names


COMMON = ["network", "bits", "ends_bits", "schedule", "steps", "method", "seed"]
ROWS = [
    ("yolov5n-seg", 32, 32, "none", 0, "fp32", 0, 0.8, 0.6, None),
    ("yolov5n-seg", 3, 8, "official", 500, "lsq", 0, 0.4, 0.3, 0.25),
    ("yolov5n-seg", 3, 8, "official", 500, "lsq", 1, 0.6, 0.5, 0.35),
    ("yolov5n-seg", 4, 4, "none", 0, "ptq", 0, 0.1, 0.1, None),
    ("yolov5n-seg", 4, 4, "official", 500, "lsq", 0, 0.5, 0.4, 0.3),
    ("yolov5n-seg", 4, 4, "constant", 500, "freezing+qc", 0, 0.7, 0.5, 0.1),
]
COLUMNS = [*COMMON, "map", "mask_map", "oscillating_share"]


def test_rows_in_markdown(tmp_path):
    """Oracle: by hand: 0.4 and 0.6 are 0.5 ± 0.141; FP32 and PTQ in each row of a width; a dash for what one lacks."""
    table = pd.DataFrame(ROWS, columns=COLUMNS)
    assert markdown(table).splitlines()[2:] == [
        "| yolov5n-seg | 3 | official | 0.800 | - | 0.500 ± 0.141 | - |",
        "| yolov5n-seg | 4* | official | 0.800 | 0.100 | 0.500 | - |",
        "| yolov5n-seg | 4* | constant | 0.800 | 0.100 | - | 0.700 |",
        "| yolov5n-seg masks | 3 | official | 0.600 | - | 0.400 ± 0.141 | - |",
        "| yolov5n-seg masks | 4* | official | 0.600 | 0.100 | 0.400 | - |",
        "| yolov5n-seg masks | 4* | constant | 0.600 | 0.100 | - | 0.500 |",
    ]
    shown = markdown(table, "oscillation").splitlines()
    assert shown[0] == "| network | bits | rate | LSQ |"
    assert shown[2:4] == ["| yolov5n-seg | 3 | official | 30.0 % ± 7.1 % |", "| yolov5n-seg | 4* | official | 30.0 % |"]
    (tmp_path / "results").mkdir()
    pd.DataFrame(ROWS, columns=COLUMNS).to_csv(tmp_path / "results" / "table.csv", index=False)
    text = "before\n<!-- oscillation: results -->\nold\n<!-- end -->\nbehind\n"
    filled = fill(text, tmp_path)
    assert filled.startswith("before\n<!-- oscillation: results -->\n| network") and "old" not in filled
    assert filled.endswith("<!-- end -->\nbehind\n") and fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="nowhere"):
        fill(text.replace("results -->", "nowhere -->"), tmp_path)
