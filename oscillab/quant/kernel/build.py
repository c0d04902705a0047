"""Where is the shared object of `kernel.c` and what it includes, and who makes it?

The machine's C compiler makes it once, in a second, in the user's cache folder (`OSCILLAB_CACHE`, else `oscillab` below
`XDG_CACHE_HOME` or `~/.cache`). Its name holds a hash of the source, the flags, the compiler and the processor, so that a
home folder shared by unlike machines holds one for each; it appears whole or not at all, whoever else builds it meanwhile.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.c")
# values must equal torch's to the last bit: no -ffast-math, which some compilers have on. Nobody reads errno and traps
EXACT = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS = ["-O3", "-std=c11", *EXACT, "-shared", "-fPIC"]
NATIVE = (["-march=native"], ["-mcpu=native"], [])
CHOICES = [(openmp, *native) for native in NATIVE for openmp in ("-fopenmp", "-fopenmp-simd")]  # the first that works
COMPILERS = ("cc", "gcc", "clang")
TIMEOUT = 60  # seconds

logger = logging.getLogger(__name__)


def shared_object() -> Path | None:
    """The shared object of `kernel.c`, compiled where it is not there yet; None, with one line in the log, where it cannot."""
    command = compiler()
    if command is None:
        logger.info("no C compiler (%s): quantizers run on torch's own operations", ", ".join(COMPILERS))
        return None
    try:
        folder = cache_folder()
        path = folder / f"kernel-{key(command)}.so"
        return path if path.is_file() else _compiled(command, path)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        logger.warning("kernel.c was not compiled (%s): quantizers run on torch's own operations", *reason or ["?"])
        return None


def compiler() -> list[str] | None:
    """The command of the machine's C compiler, `CC` where that is set; None where there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    found = [path for name in given[:1] or COMPILERS if (path := shutil.which(name))]
    return [found[0], *given[1:]] if found else None


def cache_folder() -> Path:
    """The folder of what was compiled, made where it is missing; a private one of this process where it cannot be."""
    own, caches = os.environ.get("OSCILLAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(own) if own else (Path(caches) if caches else Path.home() / ".cache") / "oscillab"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, a read-only one, or a file in the way
        pass
    return Path(tempfile.mkdtemp(prefix="oscillab-"))


def key(command: list[str]) -> str:
    """A hash of all that the shared object depends on."""
    sources = [path.read_text() for path in sorted(SOURCE.parent.glob("*.c"))]
    about = [*sources, *command, *FLAGS, str(CHOICES), _version(command), processor()]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def processor() -> str:
    """What this processor can do, in words: two machines of the same words run the same machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.lower().startswith(("model name", "flags", "features", "cpu part"))]
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(set(known))])


def _version(command: list[str]) -> str:
    """The size and the time of the compiler's file: a tenth of the time that asking it takes."""
    about = os.stat(command[0])
    return f"{about.st_size} {about.st_mtime_ns}"


def _compiled(command: list[str], path: Path) -> Path:
    """`path`, compiled beside it and moved there; raises CalledProcessError with what the compiler said."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        made = Path(folder) / path.name
        for choice in CHOICES:
            call = [*command, *FLAGS, *choice, str(SOURCE), "-o", str(made), "-lm"]
            done = subprocess.run(call, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                os.replace(made, path)  # whoever comes second puts the same there
                return path
        done.check_returncode()
    raise AssertionError("unreachable")
