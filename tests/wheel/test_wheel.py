"""The wheel works outside any checkout, and the base alone is enough for the core. `make wheel-test` runs this folder.

One environment has the wheel and sees this one's packages; the other is made from the base dependencies, over the network.
"""

import os
import re
import site
import subprocess
import sys
import venv

import pytest

SHOWN = """
import sys, time
begin = time.perf_counter()
import oscillab
assert time.perf_counter() - begin < 0.5, "import oscillab is slow"
assert "torch" not in sys.modules
from oscillab import plot, tables
recording = oscillab.Recording.open("run.npz")
assert "torch" not in sys.modules
layer = recording.layer_names[1]
print(tables.layers(recording), tables.trajectories(recording, layer).shape, tables.flip_rate(recording))
for figure in ("flips", "layers"):
    plot.draw(recording, figure).savefig(f"{figure}.png")
for figure in ("trajectories", "states", "step size", "latent weights", "layer map"):
    plot.draw(recording, figure, layer).savefig(f"{figure}.png")
print(plot.LayerExplorer({"lsq": recording}))
from oscillab import QuantSpec, quantize, record, lsq, adapt
assert "torch._dynamo" not in sys.modules, "torch's compiler was loaded"
for attempt in (lambda: oscillab.Scenes, lambda: oscillab.export_onnx, lambda: oscillab.evaluate):
    try:
        attempt()
    except ImportError as error:
        print(error)
"""


def run(*words, cwd, **options):
    """Run a program in a folder and return what it printed; AssertionError with all of it where it fails."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert options.get("fails", False) == (done.returncode != 0), done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def wheel(root, tmp_path_factory):
    """The wheel of this checkout, built from a copy so that no build folder stays."""
    copy, out = tmp_path_factory.mktemp("source") / "oscillab", tmp_path_factory.mktemp("wheel")
    run("git", "clone", "--quiet", root, copy, cwd=out)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, copy, cwd=out)
    return next(out.glob("*.whl"))


def environment(folder):
    """Make a virtual environment and return its folder of programs."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin")


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel and, by path, this environment's packages, though not its editable oscillab."""
    programs = environment(tmp_path_factory.mktemp("installed"))
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=programs)
    found = run(
        programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=programs
    ).strip()
    with open(os.path.join(found, "packages.pth"), "w") as file:
        file.write("\n".join(site.getsitepackages()))
    return programs


def test_the_package_is_the_wheels(installed, tmp_path):
    """Oracle: where the module lies; the version in the metadata is the package's."""
    told = "import oscillab, importlib.metadata as m; print(oscillab.__file__, oscillab.__version__ == m.version('oscillab'))"
    path, same = run(installed / "python", "-c", told, cwd=tmp_path).split()
    assert str(installed.parent) in path and same == "True"


def test_a_shipped_detector_loads_by_its_name(installed, tmp_path):
    """Oracle: the numbers of parameters, and the paper's tables beside them."""
    told = """import oscillab, oscillab.study.table as t
for name in ("yolov5n", "yolov5n-seg", "yolov7-tiny"):
    print(sum(p.numel() for p in oscillab.load(f"{name}-scenes").parameters()))
print(len(t.paper()) > 50)"""
    assert run(installed / "python", "-c", told, cwd=tmp_path).split()[0::3] == ["1777447", "True"]


def test_commands_work_with_their_defaults(installed, tmp_path):
    """Oracle: what they print and write in an empty folder."""
    assert "yolov5n" in run(installed / "oscillab", "study", "--preset", "quick", "--dry-run", cwd=tmp_path)
    draw = "import oscillab, cv2; cv2.imwrite('scene.png', oscillab.Scenes(1, split='val').sample(0).image[..., ::-1])"
    run(installed / "python", "-c", draw, cwd=tmp_path)
    run(installed / "oscillab", "predict", "yolov5n-scenes", "scene.png", "--size", "160", cwd=tmp_path)
    assert (tmp_path / "predictions" / "scene.png").is_file()
    small = ["--count", "32", "--held-out", "4", "--epochs", "1", "--no-progress"]
    run(installed / "oscillab", "qat", "--out", "run", *small, cwd=tmp_path)
    assert (tmp_path / "run" / "ema.pt").is_file()


@pytest.fixture(scope="session")
def base(root, wheel, tmp_path_factory):
    """An environment with the wheel and the base dependencies alone, at the pinned versions."""
    programs = environment(tmp_path_factory.mktemp("base"))
    run(
        programs / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        root / "constraints.txt",
        wheel,
        cwd=programs,
    )
    return programs


def test_the_base_records_and_shows_a_loop(root, base, tmp_path):
    """Oracle: the example's report; the tables, the figures' files; errors that name the extra in one line."""
    report = run(
        base / "python", root / "examples/record_your_own_loop.py", "--out", "run.npz", "--steps", "40", cwd=tmp_path
    )
    assert len(report.strip().splitlines()) == 4
    told = run(base / "python", "-c", SHOWN, cwd=tmp_path)
    assert "LayerExplorer(" in told and len(list(tmp_path.glob("*.png"))) == 7
    assert len(re.findall(r'^\w+ is not installed: pip install "oscillab\[yolo\]"$', told, re.M)) == 3, told
    told = run(base / "oscillab", "study", "--dry-run", cwd=tmp_path, fails=True)
    assert told.strip() == 'error: tyro is not installed: pip install "oscillab[study]"'
