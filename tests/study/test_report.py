"""The report of a folder of results: one page that needs nothing else."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest

from oscillab.study import report
from oscillab.study.figures import album


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
    run = folder / "yolov5n-3bit-seed0"
    make_recording().save(run / "lsq.npz")
    make_recording(speed=0.01).save(run / "ema.npz")
    (run / "run.json").write_text(json.dumps({"hardware": "a <processor> & more", "seed": 0}))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The text of the report."""
    return report.write(folder).read_text(encoding="utf-8")


def test_the_page_holds_its_figures(page, folder):
    """Oracle: the PNG files beside it, byte for byte."""
    images = [a["src"] for tag, a in Tags(page).starts if tag == "img"]
    inside = {b64decode(source.removeprefix("data:image/png;base64,")) for source in images}
    beside = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert inside == beside and len(images) == len(beside) == 9
    assert (folder / "figures" / "yolov5n-3bit-seed0-before-after.png").is_file()


def test_the_page_needs_nothing_else(page):
    """Oracle: no script, no link, no address but the pictures' own data; tags are closed."""
    tags = Tags(page)
    assert not tags.open
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags.starts}
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(""", page)


def test_the_page_follows_the_systems_theme(page):
    """Oracle: the media query, and both schemes declared."""
    assert "prefers-color-scheme: dark" in page and "color-scheme: light dark" in page


def test_the_table_is_on_the_page(page):
    """Oracle: EMA+QC of seed 1 has 0.510 in the table; a share of 0.25 reads 25.0 %."""
    assert "<td>0.510</td>" in page and "25.0 %" in page and ">EMA+QC</td>" in page


def test_provenance_is_escaped(page):
    """Oracle: HTML's escapes of < and &."""
    assert "a &lt;processor&gt; &amp; more" in page


def test_writing_twice_gives_the_same_page(page, folder):
    """Oracle: the text before."""
    assert report.write(folder).read_text(encoding="utf-8") == page


def test_a_folder_without_a_table_is_refused(tmp_path):
    """Oracle: the documented error."""
    with pytest.raises(ValueError, match="holds no table.csv"):
        report.write(tmp_path)


def test_the_busiest_layer_is_a_low_bit_one(live, make_recording):
    """Oracle: the 8-bit layer is made to oscillate in every weight, and is not chosen."""
    recording = make_recording()
    recording["frequency"][recording.weights_of("first")] = 1
    assert album.busiest(recording) == album.busiest(live) != "first"


def test_a_table_without_recordings_still_has_its_ladder(table):
    """Oracle: one figure."""
    assert list(album.figures(table, {})) == ["ladder"]
