"""COCO 2017 from a server of this machine that cuts connections, ignores ranges and serves broken archives."""

import io
import shutil
import zipfile
from collections import namedtuple

import pytest
from tqdm.auto import tqdm

from oscillab.__main__ import main
from oscillab.cli import download as transfer
from oscillab.cli.download import ARCHIVES, BASE_URL
from oscillab.data.dataset import CocoFolder

TRAIN, VAL = "/zips/train2017.zip", "/zips/val2017.zip"


@pytest.fixture
def mirror(script, monkeypatch):
    """A server without a proxy before it, where tries follow each other at once."""
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setattr(transfer, "CHUNK", 1000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    module = script("tests/mirror.py")
    with module.served(module.coco_archives()) as mirror:
        yield mirror


def download(mirror, folder, *arguments):
    return main(["download", "coco2017", str(folder), "--base-url", mirror.url, "--no-progress", *arguments])


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(mirror):
    files = {}
    for content in mirror.files.values():
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files |= {name: archive.read(name) for name in archive.namelist()}
    return files


def test_downloads_what_a_coco_folder_reads_and_then_leaves_it_alone(mirror, tmp_path, capsys):
    """Oracle: the archives' members byte for byte; then no request, in either layout, but for what is missing again."""
    assert [f"{BASE_URL}/{path}" for path in ARCHIVES.values()] == [  # as cocodataset.org's download page links them
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "http://images.cocodataset.org/zips/val2017.zip",
        "http://images.cocodataset.org/zips/train2017.zip",
    ]
    assert download(mirror, tmp_path) == 0 and tree(tmp_path) == expected(mirror)
    assert len(CocoFolder(tmp_path, "train2017")) == 6 and CocoFolder(tmp_path).sample(0).image.shape[0] == 48
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    mirror.requests.clear()
    assert download(mirror, tmp_path) == 0 and "nothing, it was complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "images").mkdir()
    for split in ("val2017", "train2017"):
        (tmp_path / split).rename(tmp_path / "images" / split)
    assert download(mirror, tmp_path) == 0 and mirror.requests == []
    next((tmp_path / "images" / "val2017").iterdir()).unlink()
    assert download(mirror, tmp_path, "--splits", "val2017") == 0
    assert [path for method, path, *_ in mirror.requests if method == "GET"] == [VAL]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_goes_on(mirror, tmp_path, ranges):
    """Oracle: a whole connection's files; with ranges no byte twice; without, an error, until it is whole again."""
    mirror.ranges = ranges
    size = len(mirror.files[TRAIN])
    mirror.cut_after = size * 3 // 4
    assert download(mirror, tmp_path) == (0 if ranges else 2)
    asked = [wanted for method, path, wanted, _ in mirror.requests if (method, path) == ("GET", TRAIN)]
    if ranges:
        assert asked == [None, f"bytes={mirror.cut_after}-"]
    else:
        assert (tmp_path / "train2017.zip.part").stat().st_size == mirror.cut_after and len(asked) == 1 + transfer.TRIES
        mirror.cut_after = None
        assert download(mirror, tmp_path) == 0
    assert tree(tmp_path) == expected(mirror)


def test_an_interrupted_run_goes_on_where_it_stopped(mirror, tmp_path, monkeypatch):
    """Oracle: Ctrl-C in the middle of an archive leaves its bytes, and the next run asks for those that follow."""
    update = tqdm.update

    def interrupted(bar, count):
        if bar.total == len(mirror.files[TRAIN]):
            raise KeyboardInterrupt

    monkeypatch.setattr(tqdm, "update", interrupted)
    assert download(mirror, tmp_path) == 130
    monkeypatch.setattr(tqdm, "update", update)
    mirror.requests.clear()
    assert download(mirror, tmp_path) == 0
    assert [request[1:] for request in mirror.requests if request[0] == "GET"] == [(TRAIN, "bytes=1000-", 206)]
    assert tree(tmp_path) == expected(mirror)


def test_a_changed_and_a_broken_archive_begin_again(mirror, tmp_path, capsys):
    """Oracle: the new file's bytes after half of an old one; one changed byte, found by CRC-32, leaves no folder."""
    remote = transfer.ask(mirror.url + VAL)
    (tmp_path / "val2017.zip.part").write_bytes(b"?" * (remote.size // 2))
    (tmp_path / "val2017.zip.part.tag").write_text(f"{remote.size} {remote.tag}")
    mirror.tag = '"2"'
    transfer.fetch(transfer.ask(mirror.url + VAL), tmp_path / "val2017.zip", progress=False)
    assert (tmp_path / "val2017.zip").read_bytes() == mirror.files[VAL]
    (tmp_path / "val2017.zip").unlink()
    good = mirror.files[VAL]
    middle = len(good) // 2
    mirror.files[VAL] = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    assert download(mirror, tmp_path) == 2
    error = capsys.readouterr().err
    assert "val2017.zip is damaged: Bad CRC-32" in error and "run the command again" in error
    assert not list(tmp_path.glob("*val2017")) and not (tmp_path / "val2017.zip").exists()
    mirror.files[VAL] = good
    assert download(mirror, tmp_path) == 0 and tree(tmp_path) == expected(mirror)


def a_link():
    info = zipfile.ZipInfo("val2017/link")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize("member, sentence", [
    ("../outside.txt", "holds '../outside.txt', which does not belong in val2017/"),
    ("val2017/../../outside.txt", "which does not belong in val2017/"),
    ("/outside.txt", "which does not belong in val2017/"),
    ("annotations/instances_val2017.json", "which does not belong in val2017/"),
    ("val2017\\..\\..\\outside.txt", "which does not belong in val2017/"),
    (a_link(), "holds the link 'val2017/link'"),
])  # fmt: skip
def test_an_archive_cannot_write_elsewhere(mirror, tmp_path, capsys, member, sentence):
    """Oracle: nothing but the folder's own part, as it was, exists after an archive with such a member was refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("val2017/a.jpg", b"a")
        archive.writestr(member, b"evil")
    mirror.files[VAL] = buffer.getvalue()
    folder = tmp_path / "deep" / "coco"
    assert download(mirror, folder) == 2 and sentence in capsys.readouterr().err
    assert {path.split("/")[0] for path in tree(folder)} == {"annotations"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and len(list((tmp_path / "deep").iterdir())) == 1


def test_disk_space_is_looked_at_first(mirror, tmp_path, monkeypatch, capsys):
    """Oracle: by hand: all archives' bytes for what comes out and the largest once more; a byte less is too little."""
    sizes = [len(content) for content in mirror.files.values()]
    needed = sum(sizes) + max(sizes)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, needed - 1))
    assert download(mirror, tmp_path / "coco") == 2
    assert "coco2017 needs" in capsys.readouterr().err and not (tmp_path / "coco").exists()
    assert all(method == "HEAD" for method, *_ in mirror.requests)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, needed))
    assert download(mirror, tmp_path / "coco") == 0


@pytest.mark.parametrize("arguments, sentence", [
    (["--base-url", "ftp://here"], "base_url must begin with http:// or https://, got ftp://here"),
    (["--base-url", "http://127.0.0.1:9"], "cannot download http://127.0.0.1:9/annotations/annotations_trainval2017.zip"),
    ([], "/zips/train2017.zip: HTTP Error 404: Not Found; another server can be given"),
    (["--splits", "val2017"], "has 4 bytes"),
])  # fmt: skip
def test_what_cannot_be_downloaded(mirror, tmp_path, capsys, arguments, sentence):
    """Oracle: exit status 2 and the sentence a user reads; a file of the user's own stays as it was."""
    del mirror.files[TRAIN]
    (tmp_path / "val2017.zip").write_bytes(b"mine")
    assert download(mirror, tmp_path, *arguments) == 2 and sentence in capsys.readouterr().err
    assert (tmp_path / "val2017.zip").read_bytes() == b"mine"
    assert "--base-url" not in arguments or (mirror.requests == [] and len(tree(tmp_path)) == 1)
