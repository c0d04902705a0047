"""Import on first use: the public names of a package, and the packages that only an extra installs."""

import ast
import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

EXTRAS = {  # package as it is imported -> the extra of pyproject.toml that installs it
    **dict.fromkeys(("cv2", "pycocotools", "onnx", "onnxruntime", "tqdm"), "yolo"),
    **dict.fromkeys(("tyro", "filelock", "yaml"), "study"),
    **dict.fromkeys(("brevitas", "torchao"), "adapters"),
}


def need(module: str) -> ModuleType:
    """Return a package that an extra installs; raises ImportError that names the extra where it is missing.

    >>> need("json").dumps([1])
    '[1]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise named(error) from None


def named(error: ModuleNotFoundError) -> ImportError:
    """Return an error that says in one line what to install; `error` itself where no extra has the package.

    >>> named(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    ImportError('cv2 is not installed: pip install "oscillab[yolo]"')
    """
    package = (error.name or "").partition(".")[0]
    text = f'{package} is not installed: pip install "oscillab[{EXTRAS.get(package)}]"'
    return ImportError(text, name=error.name) if package in EXTRAS else error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error's sentence: the known name that is nearest to `name`, or all of them.

    >>> nearest("quantise", ["quantize", "record"]), nearest("x", ["quantize", "record"])
    ("did you mean 'quantize'?", 'it has quantize, record')
    """
    known = sorted(known)
    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {found[0]!r}?" if found else f"it has {', '.join(known)}"


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package whose stub (.pyi) imports its names.

    A name is imported when it is first used, so that `import oscillab` is quick and needs no torch.
    """
    homes: dict[str, tuple[str, str]] = {}  # name -> (module, its name there)
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign):  # `show = plot`
            homes[ast.unparse(node.targets[0])] = homes[ast.unparse(node.value)]

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {nearest(name, homes)}")
        module, original = homes[name]
        if module == package:  # `from oscillab import plot` in oscillab's own stub is a module
            return need(f"{package}.{original}")
        return getattr(need(module), original)

    return get, lambda: sorted(homes), list(homes)
