"""Making the tries of a search: one try of all methods after the other, so that any end leaves equal tries for all."""

from dataclasses import replace

from apd_bench.core.errors import EXIT_DONE, EXIT_INTERRUPTED
from apd_bench.core.options import RunOptions
from apd_bench.records.store import Store
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import run_plan
from apd_bench.tuning.search import Search
from apd_bench.tuning.space import space_of
from apd_bench.tuning.trials import Trial, read_trials, write_trials

TABLE = "trials.csv"


def make_tries(search: Search, store: Store, options: RunOptions, reporter: Reporter) -> tuple[int, list[Trial]]:
    """Makes the tries of `search` that neither the table nor the records in `store` have; adds them to the table.

    Returns the exit code of the worst run, and the lines of all tries of this search that are done.
    """
    path = store.path / TABLE
    done, mine, code = read_trials(path), [], EXIT_DONE
    for number in range(search.trials):
        for grid in search.plans(number):
            left = [cell for cell in grid.cells if cell.id not in done]
            if left and code != EXIT_INTERRUPTED:
                reporter.message(f"try {number + 1} of {search.trials}")
                report = run_plan(replace(grid, cells=tuple(left)), store, options, reporter)
                code = max(code, report.exit_code)
                statuses = store.statuses()
                for cell in left:
                    if statuses.get(cell.id) == "success":
                        configuration = space_of(cell.fit.method.name).configuration(number)
                        done[cell.id] = Trial.of(number, configuration, store.record(cell.id))
                write_trials(path, done.values())
            mine += [done[cell.id] for cell in grid.cells if cell.id in done]
    return code, mine
