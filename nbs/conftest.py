"""Let nbval read notebooks that nbdev keeps clean."""


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
    """A blank execution count, which a clean notebook has, is not an unrun cell."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and cell.execution_count is None:
            cell.execution_count = 0
