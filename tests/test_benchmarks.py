"""The comparison with other libraries: the job, two of its arms, the runner, and its text."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import arms  # noqa: E402
import jobs  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402

from ftlearn.glyphs import digits  # noqa: E402


def test_the_pictures_are_the_digits_enlarged_in_their_order():
    x, y = jobs.pictures()
    pool, valid, test = digits()
    grey = torch.cat([part.columns[0] for part in (pool, valid, test)])
    assert x.shape == (1797, 3, 64, 64) and x.dtype == torch.uint8
    assert torch.equal(y, torch.cat([part.columns[1] for part in (pool, valid, test)]))
    assert (x[:, :1] == x).all() and x.max() == 255 and x.min() == 0
    means = [pictures.float().flatten(1).mean(1) for pictures in (x[:, 0], grey * (255 / 16))]
    assert torch.corrcoef(torch.stack(means))[0, 1] > 0.98


def test_a_job_is_trained_on_the_first_1200_and_scored_on_the_rest(monkeypatch):
    monkeypatch.setattr(jobs, "pretrained", jobs.untrained)
    work = jobs.job("last", 5)
    assert (len(work.train[0]), len(work.valid[1])) == (1200, 597) and work.rate == 3e-4
    assert torch.equal(work.valid[1], jobs.pictures()[1][1200:])
    assert not work.model.fc.weight.any() and not work.model.fc.bias.any()


@pytest.mark.parametrize("stage, first, trained", [("head", "fc", 2), ("last", "layer4", 17)])
def test_a_stage_is_what_its_name_says(stage, first, trained):
    model = jobs.untrained()
    learned = arms.freeze_before(model, stage)
    assert len(learned) == trained and jobs.last_stage(model, stage)[0] == first
    assert len(arms.freeze_before(model, "full")) == len([*model.parameters()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_limit_is_one_pass_over_all_pictures(precision):
    row = arms.run("bare", "head", 5, precision, toy=True)
    assert (row["forward_images"], row["updates"], row["bn"]) == (194, 0, "constant")


def test_the_loop_passes_all_pictures_every_epoch_and_the_cache_once():
    plain, ours = [arms.run(arm, "head", 2, "fp32", toy=True) for arm in ("plain", "ftlearn")]
    assert plain["updates"] == ours["updates"] == 6
    assert (plain["forward_images"], ours["forward_images"]) == (2 * 194, 194)
    assert (plain["bn"], ours["bn"]) == ("live", "constant")
    assert set(plain) == set(ours) and min(ours["seconds"], ours["peak_mb"]) > 0


def test_the_plain_loop_and_ftlearn_do_the_same_updates(monkeypatch):
    monkeypatch.setattr(arms, "BATCH", 130)  # one batch: the order of the pictures is no matter
    ends = []
    for arm in (arms.plain, arms.ftlearn):
        work = jobs.job("full", 2, toy=True)
        before = [p.detach().clone() for p in work.model.parameters()]
        accuracy, updates = arm(work, "fp32")
        moved = [p.detach() - old for p, old in zip(work.model.parameters(), before)]
        ends.append((accuracy, updates, torch.cat([m.flatten() for m in moved])))
    (accuracy, updates, moved), (ours, same, also) = ends
    assert updates == same == 2 and abs(accuracy - ours) <= 2 / 64
    assert torch.cosine_similarity(moved, also, dim=0) > 0.98


def test_what_fast_picks_trains(capsys):
    row = arms.run("ftlearn", "last", 1, "default", toy=True)
    assert (row["updates"], row["bn"]) == (3, "constant") and 0 <= row["accuracy"] <= 1


def test_one_run_in_a_process_of_its_own():
    run = dict(zip(peers.KEYS, (0, "head", 1, "fp32", "ftlearn")))
    row = peers.measure(run, toy=True)
    assert "error" not in row and row["updates"] == 3 and row["process_seconds"] > row["seconds"]
    assert "invalid choice" in peers.measure(run | {"arm": "nobody"}, toy=True)["error"]


def test_every_arm_takes_its_turn_in_going_first():
    runs = peers.plan(["head", "full"], [5, 20], ["default", "fp32", "bf16"])
    assert len(runs) == 5 * (16 + 14) + 2 * (16 + 14)
    assert len({json.dumps(run) for run in runs}) == len(runs)
    assert [run["repeat"] for run in runs] == sorted(run["repeat"] for run in runs)
    firsts = [r for r in runs if (r["stage"], r["epochs"]) == ("head", 5)][::16]
    assert len({(r["precision"], r["arm"]) for r in firsts}) == 5
    assert len(peers.plan(["last"], [5], ["fp32"], repeats=1)) == 6


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """The runner with a measurement that takes no time; gives back what it was asked."""
    monkeypatch.setattr(peers, "limits", dict)
    asked, path = [], tmp_path / "peers.json"
    runs = peers.plan(["head", "last", "full"], [5], ["default", "fp32", "bf16"], repeats=3)

    def ask(run, toy):
        asked.append(run)
        return row(run)

    return path, runs, ask, asked


def row(run):
    """A made-up row: ftlearn is twice as fast, one Keras run fails."""
    slow = {"ftlearn": 1.0, "bare": 0.9}.get(run["arm"], 2.0 + len(run["arm"]) / 10)
    if run["arm"] == "keras" and run["repeat"] == 2:
        return dict(process_seconds=1.0, error="ValueError: no")
    return dict(
        seconds=slow + run["repeat"] / 100,
        import_seconds=1.0,
        process_seconds=slow + 3,
        accuracy=None if run["arm"] == "bare" else 0.99 - 0.04 * (run["arm"] == "ftlearn"),
        bn="constant",
        peak_mb=900 if run["arm"] == "plain" else 1000,
        rise_mb=10,
        updates=95,
        forward_images=1797,
        threads=2,
    )


def quiet(*words, **_):
    pass


def test_a_stopped_comparison_goes_on_and_failed_runs_are_tried_again(quick):
    path, runs, ask, asked = quick

    def twenty(run, toy):
        if len(asked) == 20:
            raise KeyboardInterrupt
        return ask(run, toy)

    with pytest.raises(KeyboardInterrupt):
        peers.go(path, runs, 45, ask=twenty, say=quiet)
    assert len(json.loads(path.read_text())["rows"]) == 20
    results = peers.go(path, runs, 45, ask=ask, say=quiet)
    assert asked == runs and len(results["rows"]) == len(runs)
    failed = [r for r in results["rows"] if "error" in r]
    peers.go(path, runs, 45, ask=ask, say=quiet)
    assert len(failed) == 6 and len(asked) == len(runs) + 6


def test_it_stops_before_a_run_that_would_not_fit(quick):
    path, runs, ask, asked = quick
    said = []
    peers.go(path, runs, 0.06, ask=ask, say=lambda words, **_: said.append(words))
    assert len(asked) < 5 and "runs left" in said[-1]


def test_rows_from_elsewhere_are_refused(quick, monkeypatch):
    path, runs, ask, asked = quick
    peers.go(path, runs[:2], 45, ask=ask, say=quiet)
    before = path.read_bytes()
    now = peers.here()
    monkeypatch.setattr(peers, "here", lambda: now | {"torch": "9.9"})
    with pytest.raises(ValueError, match="measured with torch .* but here it is 9.9: move"):
        peers.go(path, runs, 45, ask=ask, say=quiet)
    assert path.read_bytes() == before and len(asked) == 2


def test_the_text_says_what_is_reached_and_where_others_are_ahead(quick):
    path, runs, ask, _ = quick
    peers.go(path, runs, 45, ask=ask, say=quiet)
    text = report.render(path.parent)
    lines = text.splitlines()

    def of(words):
        return next(line for line in lines if words in line)

    first = of("as each comes: head, 5")
    assert "plain loop | at least 11 | 2.49 (2.47 to 2.50)" in first and "not reached" in first
    assert of("all in fp32: full, 5").endswith("| reached |")
    assert "1.11 (1.11 to 1.11)" in of("bf16: head, 5 epochs, over one") and "| reached" in of(
        "over one"
    )
    assert "plain loop 900 MB; ftlearn 1,000 MB." in of("- all in bf16, last")
    assert "0.9900*" in of("- as each comes, full, 5 epochs, accuracy")
    assert "6 failed" in text and "nan" not in text.lower()


def test_the_results_of_other_scripts_are_shown_whatever_their_form(tmp_path):
    ratio = dict(median=1.05, quartiles=[1.01, 1.07])
    fit = dict(arms=dict(fit=dict(over_plain=ratio, microseconds=dict(plain=99.1, arm=104.0))))
    (tmp_path / "loop.json").write_text(json.dumps(fit | dict(environment={}, n=15)))
    (tmp_path / "imports.json").write_text(json.dumps(dict(over_torch=dict(ftlearn=ratio))))
    (tmp_path / "gpu.json").write_text(json.dumps(dict(result="not measured", gpu=None)))
    text = report.render(tmp_path)
    assert "| fit | 1.05 (1.01 to 1.07) | plain 99.1, arm 104 |" in text
    assert text.count("| reached |") == 2 and "result: not measured" in text


def test_the_stored_text_is_made_from_the_stored_results():
    assert (BENCHMARKS / "README.md").read_text("utf-8") == report.render()


def test_the_bundled_summary_is_made_from_the_stored_results():
    bundled = json.loads(report.BUNDLED.read_text("utf-8"))
    assert bundled == json.loads(json.dumps(report.summary()))
    assert {row["view"] for row in bundled["rows"]} == set(report.VIEWS)


def test_each_score_has_its_own_variance():
    """Against draws: 19 of 20 differences of equal scores are within, whatever the scores."""
    torch.manual_seed(0)
    for one, other in ((0.9, 0.9), (0.5, 0.99), (0.9883, 0.9958)):
        draws = [
            torch.binomial(torch.full((20_000,), 597.0), torch.tensor(p)) for p in (one, other)
        ]
        off = ((draws[0] - draws[1]) / 597 - (one - other)).abs()
        within = (off <= report.noise(one, other, 597)).double().mean()
        assert 0.93 < within < 0.97
    assert report.noise(0.9, 0.6, 597) == report.noise(0.6, 0.9, 597)
    assert report.noise(1.0, 1.0, 597) == 0


def test_a_single_run_has_no_range(quick):
    path, runs, ask, _ = quick
    peers.go(path, [run for run in runs if run["repeat"] == 0], 45, ask=ask, say=quiet)
    text = report.render(path.parent)
    assert "against plain loop | at least 11 | 2.50 | " in text
    assert "| full, 5 epochs | fastai | 2.60 | 2.60 | 0.9900* | " in text
    assert not any(" to " in line for line in text.splitlines() if line.startswith("| head"))


def test_a_changed_row_changes_the_summary(tmp_path):
    """The test above compares what the results say, not that there are some."""
    stored = report.read(BENCHMARKS, "peers")
    ours = [r for r in stored["rows"] if (r["arm"], r["precision"]) == ("ftlearn", "fp32")]
    ours[0]["seconds"] *= 2
    (tmp_path / "peers.json").write_text(json.dumps(stored))
    assert report.summary(tmp_path)["rows"] != report.summary()["rows"]


def test_a_target_of_a_job_that_was_not_measured_says_so(quick):
    """The jobs of this runner have 5 epochs; the targets speak of 5 and of 20."""
    path, runs, ask, _ = quick
    peers.go(path, runs, 45, ask=ask, say=quiet)
    for folder, measured in ((path.parent, True), (path.parent / "nothing", False)):
        lines = report.render(folder).splitlines()
        for view in report.VIEWS:
            targets = [s for s in lines if s.startswith(f"| {view}: ")]
            missing = [s for s in targets if s.endswith("| not measured |  | not measured |")]
            assert len(targets) == 6 and len(missing) == (3 if measured else 6)
            assert all("against the peers" in s for s in missing)
            assert sum("20 epochs" in s for s in missing) == 3
        passes = [s for s in lines if "over one bare forward pass" in s]
        assert len(passes) == 4 and sum("not measured" in s for s in passes) == 4 - 2 * measured


def test_a_job_beyond_the_targets_is_not_forgotten():
    rows = report.Rows([dict(stage="head", epochs=1), dict(stage="full", epochs=9)])
    assert rows.asked() == [
        ("head", 1), ("head", 5), ("last", 5), ("full", 5), ("full", 9), ("head", 20),
        ("last", 20), ("full", 20),
    ]  # fmt: skip
