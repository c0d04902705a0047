"""Does a result say which code it came from?"""

import shutil
import subprocess

import pytest

from oscillab import provenance

AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@example.org")


@pytest.mark.skipif(shutil.which("git") is None, reason="this machine has no git")
def test_a_result_says_which_code_it_came_from(tmp_path, monkeypatch):
    """Oracle: git's own hash; + where code is changed or new, not for results; None without a commit or without git."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    code, more = tmp_path / "oscillab" / "code.py", tmp_path / "oscillab" / "more.py"
    code.parent.mkdir()
    code.write_text("1\n")
    git("init", "--quiet"), git("add", "."), git(*AUTHOR, "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    plain = git("rev-parse", "HEAD")[:12]
    (tmp_path / "table.csv").write_text("map\n")
    assert provenance.commit() == plain
    more.write_text("2\n")
    assert provenance.commit() == f"{plain}+"
    more.unlink()
    code.write_text("3\n")
    assert provenance.commit() == f"{plain}+"
    shutil.rmtree(tmp_path / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
