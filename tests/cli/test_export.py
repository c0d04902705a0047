"""The commands `export`, `inspect` and `evaluate` of an ONNX file, as a user calls them."""

import json

import torch

import oscillab
from oscillab.__main__ import main
from oscillab.provenance import SHIPPED


def test_a_folder_gives_its_best_network_and_inspect_says_what_is_saved(tmp_path, capsys):
    """Oracle: ema.pt, of 3 bits, comes before lsq.pt; the JSON file; 60 convolutions, the first of 8 bits."""
    run, out, values = tmp_path / "run", tmp_path / "model.onnx", tmp_path / "values.json"
    run.mkdir()
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, bits in (("lsq", 4), ("ema", 3)):
        model = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(bits=bits), [pictures])
        oscillab.save(model, run / f"{name}.pt")
    assert main(["export", str(run), str(out), "--json", str(values)]) == 0
    measured = json.loads(values.read_text())
    assert measured["network"].endswith("ema.pt") and measured["bytes"] == out.stat().st_size
    assert "batch norms kept" in capsys.readouterr().out
    assert set(oscillab.load_onnx(out).facts.bits.values()) == {3, 8}
    assert main(["export", str(run / "lsq.pt"), str(out), "--size", "160"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "image size    160" in shown and "4-bit states are stored in 4-bit integers" in shown
    assert "model.0.conv              1728     8          8" in shown and "smaller and not faster" in shown


def test_evaluate_takes_an_exported_file(tmp_path, capsys):
    """Oracle: mAP of the float file is that of the float checkpoint, to three places."""
    out, found = tmp_path / "float.onnx", []
    assert main(["export", str(SHIPPED), str(out)]) == 0
    for weights in (SHIPPED, out):
        capsys.readouterr()
        assert main(["evaluate", "--weights", str(weights), "--held-out", "16", "--no-progress"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0].split()[:2] == ["map", found[1].split()[1]] and float(found[0].split()[1]) > 0.5
