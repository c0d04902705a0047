"""Is a damaged recording refused in one line, or read without fault? `benchmarks.fuzz_recordings` tries many more."""


def test_damaged_recordings(script, tmp_path):
    """Oracle: the tables of the sound file; two files for each of the fourteen ways to damage one."""
    counts, faults = script("benchmarks/fuzz_recordings.py").run(28, 1, tmp_path)
    assert not faults and len({way for way, _ in counts}) == 14
