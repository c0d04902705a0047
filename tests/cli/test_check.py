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


def test_a_folder_is_described_and_its_faults_are_listed(tmp_path, capsys):
    """Oracle: the scenes written, status 0; an image overwritten by another's, one by text, a box of text, status 1."""
    root = tmp_path / "data"
    path = CocoFolder.write(Scenes(3, split="val", size=64), root, "val2017")
    assert main(["check", str(root), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["val2017"]
    assert found["images"] == 3 and found["sizes"] == "64x64 to 64x64 pixels" and found["same images"] == "none"
    assert "disc, ring, open ring" in capsys.readouterr().out
    images = root / "images" / "val2017"
    (images / "000001.png").write_bytes((images / "000000.png").read_bytes())
    (images / "000002.png").write_text("no image")
    assert main(["check", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "000001.png = 000000.png" in shown and "error: " in shown and "000002.png cannot be read" in shown
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = "box"
    path.write_text(json.dumps(content))
    assert main(["check", str(root)]) == 1
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
    """Oracle: sys.modules of a fresh interpreter; QuantSpec's values; no option that a command does not use."""
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
    unused = {"models": "seed device", "export": "seed device threads", "pretrain": "step-size-rate timeout"}
    unused |= {"correct": "weight-decay step-size-rate sync-bn", "predict": "seed timeout"}
    for command, options in unused.items():
        assert not [option for option in options.split() if f"--{option}" in helps[command]]
