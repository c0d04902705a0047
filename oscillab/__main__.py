"""The command `oscillab`: find the command that the first word names, and run it.

A command's module is imported when it is asked for, and what it needs (torch) when it runs, so that help is quick.
"""

import logging
import os
import sys
from importlib import import_module
from typing import Any

from oscillab import __version__
from oscillab.extras import named, nearest

COMMANDS = {  # word -> (module, its dataclass of options, its function), and what it does
    "pretrain": (("pretrain", "Pretrain", "pretrain"), "train a float detector"),
    "qat": (("train", "Qat", "qat"), "quantize a detector and train it, its flips recorded"),
    "correct": (("train", "Correct", "correct"), "train quantization correction (QC) and fold it away"),
    "evaluate": (("predict", "Evaluate", "evaluate"), "measure COCO mAP of a checkpoint or an exported file"),
    "export": (("export", "Export", "export"), "write a quantized detector as an ONNX file"),
    "predict": (("predict", "Predict", "predict"), "draw what a detector finds into images"),
    "study": (("study", "Study", "study"), "run the paper's methods over networks, widths and seeds, and report them"),
    "report": (("study", "Report", "report"), "draw the report of a folder of results again"),
    "models": (("inspect", "Models", "models"), "list the detectors"),
    "inspect": (
        ("inspect", "Inspect", "inspect"),
        "say what a checkpoint, exported file, recording or run's folder is",
    ),
    "check": (("inspect", "Check", "check"), "say what a data set holds, and what is wrong with it"),
    "convert": (("convert", "Convert", "convert"), "make a data set in YOLO's or Roboflow's layout readable"),
    "download": (("download", "Download", "download"), "fetch COCO 2017"),
}
SHARED = ("qat", "correct", "evaluate")  # among the processes of torchrun


def usage() -> str:
    """Return the list of commands with a line each."""
    lines = [f"  {word:<10} {text}" for word, (_, text) in COMMANDS.items()]
    end = (
        "`oscillab COMMAND --help` tells a command's options; `torchrun --nproc-per-node N -m oscillab COMMAND` shares"
    )
    return "\n".join(["usage: oscillab COMMAND ...", "", *lines, "", f"{end} {', '.join(SHARED)} among N processes."])


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit status: 0, 1 for faults found, 2 for an error in one line, 130 for Ctrl-C."""
    word, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if word in ("--help", "-h", "--version"):
        sys.stdout.write(f"oscillab {__version__}\n" if word == "--version" else f"{usage()}\n")
        return 0
    if word not in COMMANDS:
        sys.stderr.write(f"error: no command {word!r}; {nearest(word, COMMANDS)}\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return run(word, rest)
    except ModuleNotFoundError as error:
        if named(error) is error:
            raise
        sys.stderr.write(f"error: {named(error)}\n")
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was written stays\n")
        return 130
    return 2


def run(word: str, arguments: list[str]) -> int:
    """Parse a command's options, carry it out and show what it returned; return the exit status."""
    import tyro

    (room, kind, function), text = COMMANDS[word]
    module = import_module(f"oscillab.cli.{room}")
    how: dict[str, Any] = {"config": (tyro.conf.OmitArgPrefixes,)}
    if word == "study":  # the other options change the preset that the arguments name
        from oscillab.study.config import preset_in

        how["default"] = preset_in(arguments)
    options: Any = tyro.cli(
        getattr(module, kind),
        args=arguments,
        prog=f"oscillab {word}",
        description=(getattr(module, kind).__doc__ or text).splitlines()[0],
        **how,
    )
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return show(getattr(module, function)(options), options.json)
    if word not in SHARED:
        raise ValueError(f"torchrun shares {', '.join(SHARED)} among processes; start {word} without it")
    from oscillab.train.ddp import init_distributed

    device = options.device if hasattr(options, "device") else options.run.device
    with init_distributed(device, timeout=options.timeout) as world:
        measured = getattr(module, function)(options)
    return show(measured, options.json if world.is_main else None, quiet=not world.is_main)


def show(measured: dict[str, Any], path: Any, *, quiet: bool = False) -> int:
    """Print what was measured (unless `quiet`), write it to `path` when that is given, and return the exit status."""
    status = measured.pop("status", 130 if measured.get("interrupted") else 0)
    text = measured.pop("text", None)
    if not quiet:
        from oscillab.study.text import lines

        sys.stdout.write(f"{lines(measured) if text is None else text}\n")
    if path:
        from oscillab.io import write_json

        write_json(path, measured)
    return status


def console() -> None:
    """Run the command line of this process and end it; the entry point of the script `oscillab`."""
    status = main()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # threads that spoke with other processes now and then abort an interpreter that is taken down
    sys.exit(status)


if __name__ == "__main__":
    console()
