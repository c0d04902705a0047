"""What does a person do with a notebook in JupyterLab, as methods?"""

import time

BUSY = 900  # seconds that a notebook may take to run, on a machine that others use too
QUICK = 180  # seconds that a picture may take to change
IGNORED = (  # what JupyterLab itself says on its own account
    "Failed to load resource",  # a favicon, a workspace that does not exist yet
)
NO_SESSION = "Cannot read properties of null (reading 'kernel')"  # jupyterlab-widgets 3.0.17 looks for one regardless


class Page:
    """A notebook in a browser's page. `errors`: what the console and the page reported as errors."""

    def __init__(self, page, address):
        self.page, self.address, self.errors, self._kernel = page, address, [], True
        page.on("console", lambda message: message.type == "error" and self._listen(message.text))
        page.on("pageerror", lambda error: self._listen(str(error)))

    def _listen(self, text):
        if not text.startswith(IGNORED) and (self._kernel or text != NO_SESSION):
            self.errors.append(text)

    def open(self, name, *, kernel=True):
        """Show the notebook of that name; without a kernel nothing can run."""
        self._kernel = kernel
        self.page.goto(self.address.format("lab/workspaces/auto-" + str(time.monotonic_ns())))
        self.page.wait_for_function("window.jupyterapp !== undefined")
        self.page.evaluate("window.jupyterapp.restored")
        preference = {} if kernel else {"kernelPreference": {"shouldStart": False, "canStart": False}}
        self._command("docmanager:open", {"path": f"{name}.ipynb", "factory": "Notebook", **preference})
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        if kernel:
            self._until("idle")

    def _command(self, name, arguments=None):
        self.page.evaluate("([name, given]) => void window.jupyterapp.commands.execute(name, given)", [name, arguments])

    def _until(self, status, seconds=BUSY):
        script = "status => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === status"
        self.page.wait_for_function(script, arg=status, timeout=1000 * seconds)

    def run_all(self, *, wait=True):
        """Run every cell, from a fresh kernel on."""
        script = """() => { window.ended = false;
            window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ended = true; }); }"""
        self.page.evaluate(script)
        if wait:
            self.wait()

    def wait(self, seconds=BUSY):
        """Return once every cell has run."""
        self.page.wait_for_function("window.ended", timeout=1000 * seconds)

    def outputs(self, kind):
        """The number of outputs of that kind (stream, error, display_data) over all cells."""
        script = """kind => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
            .flatMap(cell => cell.outputs ?? []).filter(output => output.output_type === kind).length"""
        return self.page.evaluate(script, kind)

    def reopen(self, name):
        """Save the notebook, end its kernel and show what is in its file; its new kernel has run nothing.

        Without any kernel jupyterlab-widgets 3.0.17 says "Loading widget..." of a notebook that was saved here, for ever.
        """
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=1000 * QUICK)
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.open(name)

    def shows_no_widget_error(self):
        """Whether nowhere on the page a widget says that it cannot be shown."""
        text = self.page.inner_text(".jp-Notebook")
        return "Error displaying widget" not in text and "Error creating widget" not in text

    def pictures(self):
        """The addresses of the pictures that widgets show, in the order of the page; empty ones are left out."""
        script = "all => all.filter(one => one.naturalWidth > 20).map(one => one.src)"
        return self.page.eval_on_selector_all(
            ".jp-OutputArea img.widget-image, .jp-OutputArea .widget-image img", script
        )

    def shown_count(self):
        """How many pictures the outputs show, of widgets or not."""
        script = "all => all.filter(one => one.naturalWidth > 20 && one.getClientRects().length).length"
        return self.page.eval_on_selector_all(".jp-OutputArea img", script)

    def wait_for_shown(self, count, seconds=QUICK):
        """Return once the outputs show that many pictures; raises AssertionError with their number where they do not."""
        end = time.monotonic() + seconds
        while self.shown_count() != count and time.monotonic() < end:
            self.page.wait_for_timeout(100)
        assert self.shown_count() == count, f"{self.shown_count()} pictures are shown, not {count}"

    def wait_for_change(self, before, seconds=QUICK, *, places=()):
        """The pictures once they differ from `before`, at each of `places` where some are named; TimeoutError else.

        One that is being loaded is not among them for a moment, so there must be as many as before.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.pictures()
            whole = now and len(now) >= len(before)
            if whole and now != before and all(now[place] != before[place] for place in places):
                return now
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"no picture changed within {seconds} s")

    def close(self):
        """Shut the kernel down and close the page."""
        self.page.evaluate("window.jupyterapp.shell.currentWidget?.sessionContext.shutdown()")
        self.page.close()
