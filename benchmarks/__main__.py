"""`make bench`: every benchmark at its default."""

from benchmarks import losses, recorder, steps

if __name__ == "__main__":
    steps.main(steps.Options())
    recorder.main(recorder.Options())
    losses.main(losses.Options())
