"""Commands of `python -m oscillab`: pretrain, qat, correct, evaluate, export, predict, study, report, models, inspect, download.

`torchrun --nproc-per-node N -m oscillab COMMAND` shares qat, correct and evaluate among N processes.

`--help` after a command tells its options.
"""

import logging
import os
import sys
from typing import Annotated

from oscillab.extras import need

try:
    tyro = need("tyro")
except ImportError as error:
    sys.exit(f"error: {error}")

from oscillab.cli import commands, download, predict
from oscillab.cli import export as deliver
from oscillab.cli import inspect as describe
from oscillab.cli import study as command
from oscillab.io import write_json
from oscillab.study.config import Study, preset_in
from oscillab.study.run import run_study
from oscillab.study.text import lines
from oscillab.train.ddp import init_distributed


def command_line(arguments):
    """The type that tyro makes the command line of: a subcommand for each command, `study` at its preset's values."""
    return (
        Annotated[commands.Pretrain, tyro.conf.subcommand("pretrain")]
        | Annotated[commands.Qat, tyro.conf.subcommand("qat")]
        | Annotated[commands.Correct, tyro.conf.subcommand("correct")]
        | Annotated[commands.Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[deliver.Export, tyro.conf.subcommand("export")]
        | Annotated[predict.Predict, tyro.conf.subcommand("predict")]
        | Annotated[Study, tyro.conf.subcommand("study", default=preset_in(arguments))]
        | Annotated[command.Report, tyro.conf.subcommand("report")]
        | Annotated[describe.Models, tyro.conf.subcommand("models")]
        | Annotated[describe.Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[download.Download, tyro.conf.subcommand("download")]
    )


ACTIONS = {
    commands.Pretrain: commands.pretrain,
    commands.Qat: commands.qat,
    commands.Correct: commands.correct_file,
    commands.Evaluate: commands.evaluate_file,
    deliver.Export: deliver.export,
    predict.Predict: predict.predict,
    Study: run_study,
    command.Report: command.report_folder,
    describe.Models: describe.models,
    describe.Inspect: describe.inspect,
    download.Download: download.download,
}


SHARED = (commands.Qat, commands.Correct, commands.Evaluate)


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
        run = getattr(options, "run", options)
        with init_distributed(getattr(run, "device", "cpu"), timeout=getattr(run, "timeout", 600)) as world:
            check_shared(options, world)
            measured = ACTIONS[type(options)](options)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was written stays\n")
        return 130
    run = getattr(options, "run", options)
    return show(measured, run.json if world.is_main else None, quiet=not world.is_main)


def check_shared(options, world):
    """Raise ValueError when several processes were started for a command that one carries out."""
    if world.size > 1 and not isinstance(options, SHARED):
        shared = ", ".join(kind.__name__.lower() for kind in SHARED)
        raise ValueError(f"torchrun shares {shared} among processes; start {type(options).__name__.lower()} without it")


def show(measured, path, *, quiet=False):
    """0, after the measured values were printed (unless `quiet`), and written to `path` when that is given."""
    text = measured.pop("text", None) or lines(measured)
    if not quiet:
        sys.stdout.write(f"{text}\n")
    if path:
        write_json(path, measured)
    return 130 if measured.get("interrupted") else 0


def leave(status):
    """Does not return; ends this process with `status`."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # threads that spoke with other processes now and then abort an interpreter that is taken down
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
