"""`make bench`: every benchmark at its default, one after the other."""

from benchmarks import data_path, evaluation, losses, memory, profile, recorder, scaling, start_up, steps

ALL = {
    "A training step": steps,
    "The recorder alone": recorder,
    "The largest costs": profile,
    "Against picture size and weights": scaling,
    "The losses": losses,
    "Memory": memory,
    "The data path": data_path,
    "Evaluation": evaluation,
    "Start-up": start_up,
}

if __name__ == "__main__":
    for title, benchmark in ALL.items():
        print(f"\n## {title}\n", flush=True)
        benchmark.main(benchmark.Options())
