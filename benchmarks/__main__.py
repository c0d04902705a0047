"""`make bench`: every benchmark at its default."""

from benchmarks import steps

if __name__ == "__main__":
    steps.main(steps.Options())
