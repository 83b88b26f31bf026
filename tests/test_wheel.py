"""The wheel works in a fresh environment that has only what its metadata asks for."""

from wheel_check import check


def test_wheel_predicts_and_runs_a_lesson_without_nbdev():
    said = check()
    assert "predictions without nbdev" in said and "a lesson runs where there is Jupyter" in said
