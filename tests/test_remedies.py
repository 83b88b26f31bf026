"""The experiment of lesson 10: its plan, its pairs, and that what is stored is complete and tuned as said."""

import json

import pytest
import torch

from ftlearn import experiment, remedies
from ftlearn.labels import everything, interval

CLOCKS = "preparation", "training"
FEW = dict(part="tuning", labels=50, draw=100)
CHEAP = {
    "control": dict(start="head", arm="nothing", setting=None, rate=1e-2, **FEW),
    "augmentation": dict(start="scratch", arm="cutmix", setting=1.0, rate=1e-2, **FEW),
    "regularisation": dict(start="letters", arm="dropout", setting=0.5, rate=1e-3, **FEW),
    "imbalance": dict(start="head", arm="oversample", rate=1e-2, part="tuning", labels=210, draw=7),
    "noise": dict(arm="correct suspects", noise=0.4, strength=30.0, **FEW),
    "views": dict(start="head", arm="4 views", rate=1e-2, **FEW),
    "asking": dict(arm="margin", part="tuning", labels=30, draw=3),
    "preprocessing": dict(start="probe", arm="/299, only in use", rate=None, **FEW),
}


@pytest.fixture(scope="module")
def rows():
    return experiment.stored("remedies")["rows"]


@pytest.fixture(scope="module")
def results():
    return remedies.stored()


def without_clocks(row):
    return {name: value for name, value in row.items() if name not in CLOCKS}


def answered(jobs):
    """Rows whose score prefers the last setting of every grid."""

    def score(job):
        setting = job.get("setting")
        setting = len(str(setting)) if isinstance(setting, str) else setting or 0
        return job.get("rate") or job.get("strength") or 0, setting

    return [job | {"accuracy": sum(score(job)) + 0.001 * job["draw"], "loss": 1.0} for job in jobs]


@pytest.fixture(scope="module")
def stages():
    """The plan of an empty file, that after the rates, and the whole one."""
    first = remedies.plan([])
    second = remedies.plan(answered(first))
    return first, second, remedies.plan(answered(second))


def test_rates_come_first_then_strengths_then_the_final_draws(stages):
    first, second, whole = stages
    assert {job["part"] for job in first} == {"tuning"}
    assert remedies.plan(answered(first[:-1])) == first, "one fit is still to be done"
    assert second[: len(first)] == first and {job["part"] for job in second} == {"tuning"}
    rates = {start: max(rates) for start, rates in remedies.RATES.items()}
    assert all(job["rate"] == rates[job["start"]] for job in second[len(first) :])
    assert whole[: len(second)] == second
    assert {job["part"] for job in whole[len(second) :]} == {"final"}
    for job in whole[len(second) :]:
        if job["topic"] == "augmentation":
            assert job["setting"] == remedies.AUGMENTATIONS[job["arm"]][1][-1]
        if job["topic"] == "noise":
            assert job["strength"] == 30, "the largest one, which is that of a plain probe too"


def test_no_job_is_asked_for_twice_and_tuning_and_test_share_no_draw(stages):
    jobs = stages[-1]
    keys = [json.dumps(job, sort_keys=True) for job in jobs]
    assert len(keys) == len(set(keys))
    draws = {p: {j["draw"] for j in jobs if j["part"] == p} for p in ("tuning", "final")}
    assert draws == dict(tuning=set(range(100, 105)), final=set(range(10)))


def test_images_to_score_on_are_in_no_draw():
    world = everything()
    for part, scored in (("tuning", 300), ("final", 597)):
        pool, unseen = remedies._sets(part)
        assert len(unseen) == scored and len(pool) == (900 if part == "tuning" else 1200)
    assert torch.equal(remedies._sets("final")[1].columns[0], world.test.columns[0])
    assert torch.equal(remedies._sets("tuning")[0].columns[0], world.pool.columns[0][:900])
    assert torch.equal(remedies._sets("tuning")[1].columns[0], world.pool.columns[0][900:])


@pytest.mark.parametrize("topic", CHEAP)
def test_a_job_gives_the_same_row_again_and_leaves_the_random_state(topic, monkeypatch):
    for start in remedies.STARTS:
        monkeypatch.setitem(remedies.STARTS, start, 24)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = remedies.measure(topic=topic, **CHEAP[topic])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    for kept in (remedies.planted, remedies._ranked, remedies._fitted):
        kept.cache_clear()
    assert without_clocks(remedies.measure(topic=topic, **CHEAP[topic])) == without_clocks(one)
    json.dumps(one)


def test_arms_of_a_draw_have_the_same_beginning_images_and_order(monkeypatch):
    seen = []

    def stop(model, objective, data, rate, updates, **_):
        plain = getattr(data, "plain", data)
        x, y = next(plain.batches(3))
        seen.append((x, y, *[p.detach().clone() for p in model.parameters()]))
        return model

    monkeypatch.setattr(remedies, "trained", stop)
    for arm, setting in (("nothing", None), ("mixup", 1.0), ("dropout", 0.5), ("noise", 0.1)):
        job = dict(start="scratch", arm=arm, setting=setting, rate=1e-2, **FEW)
        remedies.measure(topic=remedies._topic(arm), **job)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_early_stopping_learns_from_what_the_arm_without_it_has(monkeypatch):
    taken = []

    def look(model, objective, data, rate, updates, watched=None, by=None, below=None, decay=0.0):
        taken.append((data, watched))
        return model

    monkeypatch.setattr(remedies, "trained", look)
    for arm, setting in (("early stopping", "loss"), ("ten images fewer", 0.8)):
        job = dict(start="scratch", arm=arm, setting=setting, rate=1e-2, **FEW)
        remedies.measure(topic="regularisation", **job)
    (data, watched), (same, none) = taken
    assert torch.equal(data.columns[0], same.columns[0]) and len(data) == 40 and none is None
    assert watched.columns[1].bincount().tolist() == [1] * 10
    assert data.columns[1].bincount().tolist() == [4] * 10


def test_the_best_epoch_is_put_back():
    pool, unseen = remedies.features("tuning")
    data = pool.take(torch.arange(100)).like(batch_size=25, shuffle=True)
    objective, seen = remedies.cross_entropy(), []

    def watch(z, x, y):
        seen.append(z)
        return torch.full((len(z),), float(len(seen) == 3))

    remedies.WATCH["the third"] = watch
    try:
        head = torch.nn.Linear(256, 10)
        remedies.trained(head, objective, data, 1e-2, 20, watched=unseen, by="the third")
    finally:
        del remedies.WATCH["the third"]
    batches = unseen.steps
    assert len(seen) == 5 * batches
    third = remedies.predict(head, unseen)
    nearest = [third[: len(z)].sub(z).abs().max() < 1e-5 for z in seen[::batches]]
    assert any(nearest) and not nearest[-1]


def test_errors_are_planted_and_suspects_are_corrected_with_the_right_label():
    for noise, labels in ((0.1, 100), (0.4, 50)):
        data, bad, right = remedies.planted("tuning", 3, noise, labels)
        assert int(bad.sum()) == round(noise * labels)
        assert torch.equal(data.columns[1] != right, bad)
        ranked = remedies._ranked("tuning", 3, noise, labels)
        assert sorted(ranked.tolist()) == list(range(labels))


def test_a_probe_may_miss_classes_and_is_the_linear_probe_where_it_does_not():
    pool, unseen = remedies.features("tuning")
    few = pool.take(torch.arange(200))
    whole = remedies.predict(remedies.linear_probe(few), unseen)
    assert torch.equal(remedies.predict(remedies.probe(few), unseen), whole)
    odd = few.take(few.columns[1] % 2 == 1)
    assert set(remedies.predict(remedies.probe(odd), unseen).argmax(1).tolist()) == {1, 3, 5, 7, 9}


def test_passes_through_the_body_are_counted_as_they_happen(monkeypatch):
    passed = []
    real = remedies.learner

    def counted(start, dropout=0.0):
        body, model = real(start, dropout)
        body.register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
        return body, model

    remedies._unseen("tuning", "head")
    monkeypatch.setattr(remedies, "learner", counted)
    monkeypatch.setitem(remedies.STARTS, "head", 4)
    for arm, images in (("nothing", 50), ("1 view", 50), ("live", 100)):
        passed.clear()
        row = remedies.viewed("tuning", 100, "head", arm, 1e-2, 50)
        assert row["images"] == sum(passed) == images, arm


def test_updates_are_whole_epochs():
    data = remedies.few("tuning", 50, 100)
    with pytest.raises(ValueError, match="63 updates are no whole number of epochs of 2"):
        remedies.trained(torch.nn.Linear(1, 1), None, data, 1e-2, 63)


def test_what_is_stored_is_complete(rows):
    jobs = remedies.plan(rows)
    assert experiment.todo(jobs, rows) == []
    assert len(rows) == len(jobs) == 2300 + 2350, "no row that the plan does not ask for"
    assert {r["draw"] for r in rows if r["part"] == "tuning"} == set(remedies.TUNING_DRAWS)
    assert {r["draw"] for r in rows if r["part"] == "final"} == set(remedies.DRAWS)
    assert sum(r["seconds"] for r in rows) < 1500


def test_settings_were_chosen_by_the_tuning_alone(rows):
    tuning = [r for r in rows if r["part"] == "tuning"]
    spoiled = tuning + [r | {"accuracy": 1.0 - r["accuracy"]} for r in rows if r["part"] == "final"]
    chosen = remedies.chosen(tuning)
    assert remedies.chosen(spoiled) == chosen
    for r in rows:
        if r["part"] == "final" and r["topic"] in ("augmentation", "regularisation"):
            assert r["setting"] == chosen["strengths"][r["start"], r["arm"]]
            assert r["rate"] == chosen["rates"][r["start"]]
        if r["part"] == "final" and r["topic"] == "noise" and r["arm"] in remedies.HOLDING:
            assert r["strength"] == chosen["held"][r["arm"], r["noise"], r["labels"]]


def test_gains_are_paired_with_the_control_of_the_same_start(results):
    found = remedies.gains(results, "augmentation", start="scratch")
    assert list(found) == list(remedies.AUGMENTATIONS)
    where = dict(start="scratch", topic="augmentation", arm="shift")
    one = experiment.values(results["rows"], **where)
    other = experiment.values(results["rows"], start="scratch", topic="control")
    middle, half = interval((100 * (one - other)).tolist())
    assert found["shift"] == pytest.approx((middle, half))
    assert "live" not in remedies.gains(results, "views", control="live", start="head")


@pytest.mark.parametrize("topic, where, sentence", [
    ("augmentation", {}, "differ in start"),
    ("noise", dict(noise=0.1), "differ in labels"),
    ("cooking", {}, "no rows"),
    ("views", dict(start="scratch"), "no rows"),
])  # fmt: skip
def test_rows_that_cannot_be_paired_are_refused(topic, where, sentence, results):
    with pytest.raises(ValueError, match=sentence) as refused:
        remedies.gains(results, topic, **where)
    assert len(str(refused.value)) < 400 and str(refused.value).endswith(".")


def test_the_other_topics_have_their_readers(results):
    assert set(remedies.lead(results)) == set(range(10, 101, 5))
    assert remedies.lead(results)[10] == (0, 0), "both begin with the same labels"
    assert len(remedies.precision(results)) == 4 * 5
    costs = remedies.costs(results, "head")
    assert [images for images, *_ in costs.values()] == [50, 50, 200, 800, 4800]


def test_strengths_that_were_tried_are_told_apart_from_nothing(results):
    found = remedies.tried(results, "scratch", "affine")
    assert list(found) == list(remedies.AUGMENTATIONS["affine"][1])
    assert remedies.tried(results, "scratch", "mirrored") == {}, "one strength, nothing to try"
    best = max(found, key=lambda strength: found[strength][0])
    assert best == results["chosen"]["strengths"]["scratch", "affine"]
