"""The command `check`, and what the command line says without a command."""

import json
import subprocess
import sys

from oscillab import __version__
from oscillab.__main__ import COMMANDS, main
from oscillab.cli.train import QuantOptions
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.quant import QuantSpec


def test_a_sound_folder_is_described(tmp_path, capsys):
    """Oracle: the scenes that were written: their number, classes and sizes; exit status 0."""
    CocoFolder.write(Scenes(3, split="val", size=64), tmp_path / "data", "val2017")
    assert main(["check", str(tmp_path / "data"), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["val2017"]
    assert found["images"] == 3 and found["sizes"] == "64x64 to 64x64 pixels" and found["same images"] == "none"
    assert "disc, ring, open ring" in capsys.readouterr().out


def test_faults_are_listed_and_end_with_status_1(tmp_path, capsys):
    """Oracle: an image overwritten by another's bytes, one by text, then a box of text; each is named."""
    path = CocoFolder.write(Scenes(3, split="val", size=64), tmp_path, "val2017")
    images = tmp_path / "images" / "val2017"
    (images / "000001.png").write_bytes((images / "000000.png").read_bytes())
    (images / "000002.png").write_text("no image")
    assert main(["check", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "000001.png = 000000.png" in shown and "error: " in shown and "000002.png cannot be read" in shown
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = "box"
    path.write_text(json.dumps(content))
    assert main(["check", str(tmp_path)]) == 1
    assert "error: bbox of entry 0 of 'annotations'" in capsys.readouterr().out


def test_without_a_command(capsys):
    """Oracle: a line for each command; the package's version; the nearest command."""
    for words in ([], ["--help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"  {word} " in shown for word in COMMANDS)
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"oscillab {__version__}\n"
    assert main(["evalute"]) == 2 and "no command 'evalute'; did you mean 'evaluate'?" in capsys.readouterr().err


def test_help_is_quick_and_lists_what_is_allowed_and_used(root):
    """Oracle: sys.modules of a fresh interpreter that has shown every command's help; QuantSpec's own values and defaults;
    no option of a command that does not use it."""
    code = (
        "import sys; from oscillab.__main__ import COMMANDS, main\n"
        "for word in COMMANDS:\n    print('===', word)\n    try: main([word, '--help'])\n    except SystemExit: pass\n"
        "print('=== loaded', *({'torch', 'numpy', 'pandas', 'cv2', 'matplotlib'} & {*sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    *pages, loaded = shown.split("=== ")[1:]
    helps = {page.split()[0]: page for page in pages}
    assert loaded.split() == ["loaded"] and list(helps) == list(COMMANDS) and "dummy" not in shown
    for values in ("{symmetric,unsigned,affine}", "{mse,lsq}", "{per_tensor,per_channel}", "{unrounded,rounded}"):
        assert values in helps["qat"]
    assert QuantSpec(**vars(QuantOptions())) == QuantSpec()
    unused = {
        "models": "seed device",
        "export": "seed device threads",
        "correct": "weight-decay step-size-rate sync-bn",
    }
    for command, options in {**unused, "pretrain": "step-size-rate timeout", "predict": "seed timeout"}.items():
        assert not [option for option in options.split() if f"--{option}" in helps[command]]
