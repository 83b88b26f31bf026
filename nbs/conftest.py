"""Let nbval read notebooks that nbdev keeps clean."""

import re

UNEVALUATED = re.compile(r"^#\s*\|\s*eval:\s*false\s*$", re.M)


def pytest_configure(config):
    """Run cells with history on: IPython obeys a trailing semicolon only then."""
    if not config.getoption("nbval", False):
        return
    from nbval.kernel import RunningKernel

    def execute(self, source, allow_stdin=None):
        return self.kc.execute(
            source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )

    RunningKernel.execute_cell_input = execute


def pytest_collection_modifyitems(items):
    """Skip what is not to be run; a blank execution count is not an unrun cell."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is None:
            continue
        if UNEVALUATED.search(cell.source):
            item.options["skip"] = True
        elif cell.execution_count is None:
            cell.execution_count = 0
