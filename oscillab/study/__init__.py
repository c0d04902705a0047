"""The study: a grid of QAT runs, each with everything that is measured on it, as jobs that a killed study goes on with."""
