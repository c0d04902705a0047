"""What does a pickle hold, if nothing in it may run?

A pickle is a small program that may name any Python object and call it. `Machine` follows such a program itself: it
knows only the instructions that `torch.save` writes and makes only plain values, lists, dicts, tuples and tensors. The
names that official checkpoints use become `Inert` records, every other name is refused. Nothing is imported, and
nothing is called but the three functions in `MAKERS`.

What comes out is still a stranger's: a few bytes can describe a tuple whose text or hash takes for ever. Nothing of it
is printed, hashed or compared before its type is known to be plain.
"""

import io
import math
import pickletools

INERT_PREFIXES = ("models.", "utils.", "ultralytics.", "torch.nn.modules.", "pathlib.", "argparse.")
INERT_NAMES = {
    *("__builtin__.set", "builtins.set", "__builtin__.getattr", "builtins.getattr", "_codecs.encode"),
    *("numpy.ndarray", "numpy.dtype", "torch.Size", "torch.device"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}


class Inert:
    """What a pickle names or makes but must not come to life: its name, its arguments, its state."""

    def __init__(self, name, arguments=()):
        self.name = name
        self.arguments = arguments
        self.state = None


def rebuild_tensor(storage, offset, size, stride, *_):
    """The view of the flat tensor `storage` with that offset, size and stride.

    Raises ValueError where it reaches out of the storage or holds more numbers than it.
    """
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        raise ValueError("a tensor's size and stride must be tuples of one length of at most 8")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError("a tensor's offset, size and stride must be whole numbers of at least 0")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError(f"a tensor of size {size} reaches out of its storage of {len(storage)} numbers")
    return storage.as_strided(size, stride, offset)


def ordered_dict(pairs=()):
    """A dict of `pairs`; raises ValueError unless its keys are plain values.

    Hashing a nest of tuples can take for ever, or end the process.
    """
    made = {}
    for key, value in pairs:
        if not isinstance(key, str | int | float | bytes | None):
            raise ValueError(f"a dict key must be a plain value, got {type(key).__name__}")
        made[key] = value
    return made


MAKERS = {
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "collections.OrderedDict": ordered_dict,
}


def instructions(program):
    """(name, argument) of each instruction in the bytes of a pickle, up to its STOP.

    As `pickletools.genops`, but raises ValueError for an unknown one before its argument is looked at.
    """
    stream, name = io.BytesIO(program), None
    while name != "STOP":
        code = stream.read(1)
        if not code:
            raise ValueError("its pickle ends before its STOP instruction")
        instruction = INSTRUCTIONS.get(code.decode("latin-1"))
        if instruction is None:
            raise ValueError(f"pickle instruction {code!r} has no place in a checkpoint")
        name = instruction.name
        # pickletools would undo escapes in a name, which pickle itself does not
        reader = read_name if name == "GLOBAL" else instruction.arg and instruction.arg.reader
        yield name, reader(stream) if reader else None


def read_name(stream):
    """The dotted name that two lines of `stream` give, module and name."""
    module, name = (stream.readline().rstrip(b"\n").decode() for _ in range(2))
    return f"{module}.{name}"


class Machine:
    """A pickle machine that makes nothing but plain values, containers, tensors and `Inert` records.

    `storage(identity)` gives the flat tensor that a persistent id stands for, `storage_names` are the type names that
    such an id may hold.
    """

    def __init__(self, storage, storage_names):
        self.storage = storage
        self.storage_names = set(storage_names)
        self.stack, self.below, self.memo = [], [], {}

    def run(self, program):
        """The value that the bytes of `program` leave behind; raises ValueError for what must not be in it."""
        for name, argument in instructions(program):
            if name in VALUES:
                self.push(argument)
            elif name in FRESH:
                self.push(FRESH[name]())
            else:
                STEPS[name](self, argument)
        return self.stack.pop()

    def push(self, value):
        """Put `value` on top of the stack."""
        self.stack.append(value)

    def refer(self, name):
        """Push the record of the object of that dotted name; raises ValueError unless it is an allowed one."""
        if not (name in MAKERS or name in INERT_NAMES or name in self.storage_names or name.startswith(INERT_PREFIXES)):
            raise ValueError(f"names the foreign object {name!r}, which has no place in a checkpoint; nothing was run")
        self.push(Inert(name))

    def refer_from_stack(self, _):
        """Push the record of the object whose module and name are on the stack."""
        module, name = self.pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("an object's module and name must be text")
        self.refer(f"{module}.{name}")

    def call(self, _):
        """Push what the named maker makes of its arguments, for any other name an inert record."""
        called, arguments = self.pop(2)
        if not (isinstance(called, Inert) and isinstance(arguments, tuple)):
            raise ValueError("only a named object can be called, with a tuple of arguments")
        maker = MAKERS.get(called.name)
        self.push(maker(*arguments) if maker else Inert(called.name, arguments))

    def set_state(self, _):
        """Keep an inert record's state; a dict's own attributes (torch's `_metadata`) are dropped."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):
            raise ValueError(f"a {type(self.stack[-1]).__name__} cannot take a state")

    def mark(self, _):
        """Begin a group."""
        self.below.append(self.stack)
        self.stack = []

    def group(self):
        """The items since the last mark, taken off the stack."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items):
        """Append `items` to the list on top of the stack."""
        if not isinstance(self.stack[-1], list):
            raise ValueError(f"a {type(self.stack[-1]).__name__} cannot be appended to")
        self.stack[-1].extend(items)

    def update(self, items):
        """Put `items`, keys and values in turn, into the dict on top of the stack."""
        if not isinstance(self.stack[-1], dict):
            raise ValueError(f"a {type(self.stack[-1]).__name__} cannot take items")
        self.stack[-1].update(ordered_dict(zip(items[::2], items[1::2], strict=True)))

    def pop(self, count):
        """The last `count` items, taken off the stack."""
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def remember(self, index):
        """Keep the top of the stack under `index`, by default the next free one."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]


VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
FRESH = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
STEPS = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "GLOBAL": Machine.refer,
    "STACK_GLOBAL": Machine.refer_from_stack,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "BUILD": Machine.set_state,
    "BINPERSID": lambda machine, _: machine.push(machine.storage(machine.stack.pop())),
    "MARK": Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.group())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.group()),
    "SETITEM": lambda machine, _: machine.update(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.group()),
}
INSTRUCTIONS = {each.code: each for each in pickletools.opcodes if each.name in {*VALUES, *FRESH, *STEPS}}
