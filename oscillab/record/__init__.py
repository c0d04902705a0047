"""What oscillates? The recorder, the recording in a file, and the tables drawn from it.

The room and the public function share their name: once anything of the room is imported, `oscillab.record` is this
package, so the package itself can be called: `oscillab.record(model, optimizer)` is `oscillab.record.recorder.record`.
"""

import sys
from types import ModuleType


class CallablePackage(ModuleType):
    """A package that is called as its main function is; torch comes in only then."""

    def __call__(self, model, optimizer, **options):
        """A `Recorder`, see `oscillab.record.recorder.record`."""
        from oscillab.record.recorder import record

        return record(model, optimizer, **options)


sys.modules[__name__].__class__ = CallablePackage
