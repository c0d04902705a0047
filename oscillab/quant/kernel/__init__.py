"""What is computed in one pass over memory, by a small C file that this machine's compiler makes; see `calls.py`."""

from .calls import Kernel, kernel_for, kernel_off, loaded

__all__ = ["Kernel", "kernel_for", "kernel_off", "loaded"]
