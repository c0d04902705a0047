"""README and docs say what the recorded results say, and README's program runs."""

import re

from oscillab.study import report

STAND_INS = {  # what stands in for a checkpoint and for COCO, and for minutes
    '"yolov5n.pt"': '"yolov5n-scenes"',
    'oscillab.CocoFolder("coco", "train2017")': 'oscillab.Scenes(8, split="train")',
    'oscillab.CocoFolder("coco", "val2017")': 'oscillab.Scenes(4, split="val")',
    "size=640": "size=160",
    "batch_size=16": "batch_size=2",
}


def test_tables_are_those_of_the_recorded_results(root):
    """Oracle: data/results/*/table.csv, written by the study; the page is filled from them by a command."""
    text = (root / "docs" / "results.md").read_text()
    assert len(report.PLACE.findall(text)) >= 3
    assert report.fill(text, root) == text


def test_readme_is_short_and_its_links_exist(root):
    """Oracle: 120 lines beside a table of three results; every relative link of README and docs names a file."""
    assert len((root / "README.md").read_text().splitlines()) <= 123
    for path in (root / "README.md", *(root / "docs").glob("*.md")):
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()) if not link.startswith("http")]
        assert not [link for link in links if not (path.parent / link).exists()], path.name


def test_the_program_of_the_readme_runs(root, tmp_path, monkeypatch, capsys):
    """Oracle: it ends, prints one mAP of 0..1, and leaves a recording; scenes stand in for COCO."""
    monkeypatch.chdir(tmp_path)
    program = re.search(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.M | re.S).group(1)
    for written, run in STAND_INS.items():
        assert written in program
        program = program.replace(written, run)
    exec(compile(program, "README.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1 and (tmp_path / "lsq.npz").is_file()
