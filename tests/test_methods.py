"""The experiment of lesson 09: its plan, and that what is stored is complete and was tuned as said."""

from ftlearn import experiment, methods


def rows_of(jobs):
    """Rows with a score that grows with the first number of the setting."""
    return [job | {"accuracy": 0.1 * job["setting"][0] + 0.01 * job["draw"]} for job in jobs]


def test_tuning_comes_first_and_its_choice_is_used():
    first = methods.plan([])
    assert {(job["part"], job["labels"]) for job in first} == {("tuning", 5)}
    assert methods.plan(rows_of(first[:-1])) == first, "one fit is still to be done"
    final = methods.plan(rows_of(first))[len(first) :]
    largest = {name: max(s)[0] for name, (_, s) in methods.METHODS.items()}
    assert {(j["method"], j["setting"][0]) for j in final if j["method"] in largest} == {
        *largest.items()
    }
    assert {j["method"] for j in final} == {*methods.METHODS, *methods.SLOW}
    assert {j["part"] for j in final} == {"final"}


def test_methods_have_the_same_budget_and_as_many_settings():
    for make, settings in methods.METHODS.values():
        assert len(settings) == len(set(settings)) == 9
        assert all(
            sum(p.updates for p in make(*setting)) == methods.UPDATES for setting in settings
        )
    assert not set(methods.DRAWS) & set(methods.TUNING_DRAWS)


def test_what_is_stored_is_complete_and_was_tuned_as_said():
    rows = experiment.stored("methods")["rows"]
    assert experiment.todo(methods.plan(rows), rows) == []
    results = methods.stored()
    assert len(results["rows"]) == 4 * 10 * 7 and len(results["tuning"]) == 5 * 9 * 5
    for labels in methods.BUDGETS:
        for method in [*methods.METHODS, *methods.SLOW]:
            assert len(methods.column(results["rows"], method, labels)) == 10


def test_a_difference_is_that_of_the_columns():
    rows = methods.stored()["rows"]
    middle, half = methods.difference(rows, "full", "head only", 20)
    columns = [methods.column(rows, name, 20) for name in ("full", "head only")]
    assert abs(middle - (columns[0] - columns[1]).mean()) < 1e-12 and 0 < half < 0.02
