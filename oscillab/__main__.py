"""The command line, `python -m oscillab COMMAND`: pretrain, qat, correct, evaluate, study, report, models, inspect.

`--help` after a command tells its options.
"""

import logging
import sys
from typing import Annotated

import tyro

from oscillab import commands, describe
from oscillab.show import report
from oscillab.study import command
from oscillab.study.options import Study, preset_in


def command_line(arguments):
    """The type that tyro makes the command line of: a subcommand for each command, `study` at its preset's values."""
    return (
        Annotated[commands.Pretrain, tyro.conf.subcommand("pretrain")]
        | Annotated[commands.Qat, tyro.conf.subcommand("qat")]
        | Annotated[commands.Correct, tyro.conf.subcommand("correct")]
        | Annotated[commands.Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Study, tyro.conf.subcommand("study", default=preset_in(arguments))]
        | Annotated[command.Report, tyro.conf.subcommand("report")]
        | Annotated[describe.Models, tyro.conf.subcommand("models")]
        | Annotated[describe.Inspect, tyro.conf.subcommand("inspect")]
    )


ACTIONS = {
    commands.Pretrain: commands.pretrain,
    commands.Qat: commands.qat,
    commands.Correct: commands.correct_file,
    commands.Evaluate: commands.evaluate_file,
    Study: command.study,
    command.Report: command.report_folder,
    describe.Models: describe.models,
    describe.Inspect: describe.inspect,
}


def main(arguments=None):
    """The exit status: 0, 2 after an error in one line, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(
        command_line(arguments),
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
