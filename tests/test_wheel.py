"""The wheel works in a fresh environment that has only what its metadata asks for."""

from wheel_check import check


def test_wheel_predicts_without_nbdev():
    assert "predictions without nbdev" in check()
