"""The command line, `python -m oscillab COMMAND`: pretrain, qat, correct, evaluate, study, report, models, inspect.

`--help` after a command tells its options.
"""

import logging
import sys
from typing import Annotated

import tyro

from oscillab import commands, describe, study
from oscillab.show import report

Command = (
    Annotated[commands.Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[commands.Qat, tyro.conf.subcommand("qat")]
    | Annotated[commands.Correct, tyro.conf.subcommand("correct")]
    | Annotated[commands.Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[study.Study, tyro.conf.subcommand("study")]
    | Annotated[study.Report, tyro.conf.subcommand("report")]
    | Annotated[describe.Models, tyro.conf.subcommand("models")]
    | Annotated[describe.Inspect, tyro.conf.subcommand("inspect")]
)
ACTIONS = {
    commands.Pretrain: commands.pretrain,
    commands.Qat: commands.qat,
    commands.Correct: commands.correct_file,
    commands.Evaluate: commands.evaluate_file,
    study.Study: study.study,
    study.Report: study.report_folder,
    describe.Models: describe.models,
    describe.Inspect: describe.inspect,
}


def main(arguments=None):
    """The exit status: 0, 2 after an error in one line, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = tyro.cli(
        Command,
        args=arguments,
        prog="oscillab",
        description=__doc__.splitlines()[0],
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        measured = ACTIONS[type(options)](options)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the last checkpoint stays\n")
        return 130
    return show(measured, options.run.json)


def show(measured, path):
    """0, after the measured values were printed, and written to `path` when that is given."""
    sys.stdout.write(measured.pop("text", None) or report.lines(measured))
    sys.stdout.write("\n")
    if path:
        from oscillab.runs import write_json

        write_json(path, measured)
    return 130 if measured.get("interrupted") else 0


if __name__ == "__main__":
    sys.exit(main())
