"""Which jobs a study consists of, and which grids it refuses."""

from collections import Counter
from dataclasses import replace

import pytest

import oscillab
from oscillab.study.config import ABLATION, PRESETS, SCENES, preset_in
from oscillab.study.grid import jobs_of, methods_of, quant_spec


def test_one_job_for_each_cell(tiny):
    """Oracle: products, counted, as docs/study.md has them; another folder is the same run, another rate is not."""
    jobs = jobs_of(tiny(bits=("4", "4*"), seeds=(0, 1), arms=("lsq", "dampening", "per_channel")))
    assert len(jobs) == len({job.folder for job in jobs}) == 12
    starred = next(job for job in jobs if job.folder.name == "yolov5n-4bit-ends4-constant-dampening-seed1")
    assert starred.remedy == "dampening" and starred.bits == (4, 4) and starred.run.seed == 1
    assert next(job for job in jobs if job.arm == "per_channel").quant.weight_granularity == "per_channel"
    job = jobs_of(tiny())[0]
    same = [tiny(out=tiny().folder / "elsewhere"), tiny(run=replace(tiny().run, threads=2, progress=True))]
    assert {jobs_of(options)[0].hash() for options in same} == {job.hash()}
    other = [tiny(train=replace(tiny().train, learning_rate=2e-3)), tiny(seeds=(1,)), tiny(qc_epochs=2)]
    assert len({jobs_of(options)[0].hash() for options in other} | {job.hash()}) == 4
    jobs = jobs_of(replace(PRESETS["regime"], out=tiny().folder))
    counts = Counter((job.train.epochs, job.arm == "lsq") for job in jobs)
    assert counts == {(2, True): 18, (2, False): 18, (8, True): 18, (8, False): 18, (32, True): 12}
    assert len({job.folder for job in jobs}) == 84 and sum(job.untrained for job in jobs) == 6
    falls = {job.schedule: (job.train.schedule, job.train.final_share) for job in jobs}
    assert falls["official"] == ("linear", 0.01) and falls["cosine10"] == ("cosine", 0.1)


def test_methods_widths_and_presets(tiny):
    """Oracle: by hand: 5 starts, 9 controls on EMA, 5 on LSQ; 4* has 4-bit ends (section 4 of 2311.05109)."""
    methods = [method for method, _, _ in methods_of("lsq", ABLATION.averages, ABLATION.controls)]
    assert len(methods) == len(set(methods)) == 5 + 9 + 5
    assert {"ema+qc_scale", "ema+bn_affine_and_biases", "lsq+bn_affine"} <= set(methods)
    assert [m for m, _, _ in methods_of("q_ema", ("ema",), ABLATION.controls)] == ["q_ema", "q_ema+ema", "q_ema+qc"]
    assert (quant_spec("4").bits, quant_spec("4").first_last_bits) == (4, 8)
    assert (quant_spec("4*").bits, quant_spec("4*").first_last_bits) == (4, 4)
    with pytest.raises(ValueError, match="bits must be 2..8, or 4"):
        quant_spec("four")
    assert preset_in(["study", "--preset", "ablation", "--jobs", "1"]) is ABLATION
    assert preset_in(["study", "--preset=scenes"]) is SCENES and preset_in(["study"]) is PRESETS["quick"]
    assert len(SCENES.model) == len(SCENES.seeds) == len(SCENES.bits) == 3


def test_what_does_not_fit_is_refused(tiny, tmp_path):
    """Oracle: the sentence: a schedule or a length beside several, another network's file, a missing file."""
    for preset, change, words in (
        ("quick", {"schedule": "cosine"}, "which schedule cosine would not change: give --schedules"),
        ("regime", {"epochs": 1}, "passes of its own, which epochs 1 would not change: give --passes 1"),
    ):
        study = PRESETS[preset]
        with pytest.raises(ValueError, match=words):
            jobs_of(replace(study, out=tiny().folder, train=replace(study.train, **change)))
    path = oscillab.save(oscillab.build("yolov5n", classes=10), tmp_path / "yolov7-tiny.pt", half=True)
    for name, weights, words in (
        ("yolov7-tiny", path, "holds yolov5n, not yolov7-tiny"),
        ("yolov7-tiny", tmp_path, "holds yolov5n, not yolov7-tiny"),
        ("yolov5s", tmp_path, "no checkpoint of yolov5s at .*: give --weights"),
    ):
        with pytest.raises(ValueError, match=words):
            jobs_of(tiny(model=(name,), weights=weights))
