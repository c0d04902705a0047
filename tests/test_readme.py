"""Does the README say what the recorded results say?"""

from oscillab.study import readme


def test_tables_are_those_of_the_recorded_results(root):
    """Oracle: data/results/*/table.csv, written by the study; the README is filled from them by a command."""
    text = (root / "README.md").read_text()
    assert len(readme.PLACE.findall(text)) == 3
    assert readme.fill(text, root) == text


def test_readme_is_short_and_its_links_exist(root):
    """Oracle: at most 140 lines beside the filled tables; every relative link and picture names a file of the repository."""
    import re

    text = (root / "README.md").read_text()
    assert len(readme.PLACE.sub("", text).splitlines()) <= 140
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert links and all((root / link).exists() for link in links), links
