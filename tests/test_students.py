"""The experiment of lesson 11: its plan, its fits, and that what is stored is complete."""

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from ftlearn import experiment, students
from ftlearn.students import SOFT, line

ALONE = line("2 k", "alone", "labelled", updates=5)


@pytest.fixture
def quick(monkeypatch):
    """The letters network as it is, with a head of zeros, in the place of the teacher."""

    @students.lru_cache(4)
    def teacher(draw):
        torch.manual_seed(draw)
        model = students.replace_head(students.pretrained("letters"), 10)
        torch.nn.init.normal_(model.head[-1].weight, std=0.3)
        return students.freeze(model)

    caches = students._answers, students._others, students._teachers
    monkeypatch.setattr(students, "teacher", teacher)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


def job(names, rate=0.03, draw=100, part="tuning"):
    return dict(part=part, **names, rate=rate, draw=draw)


def test_a_fit_is_a_function_of_its_job_and_leaves_the_random_state_alone(quick):
    before = torch.get_rng_state()
    first = students.measure(**job(ALONE))
    assert torch.equal(torch.get_rng_state(), before)
    assert students.measure(**job(ALONE)) == first
    assert students.measure(**job(ALONE, draw=101)) != first


@pytest.mark.parametrize("arm", ["mutual", "hints", "KD, random", "KD, shuffled", "DKD"])
def test_every_kind_of_arm_is_a_function_of_its_job(quick, arm):
    names = line("2 k", arm, **(SOFT if "KD," in arm else {}), updates=20)
    assert students.measure(**job(names)) == students.measure(**job(names))


def test_arms_of_a_draw_have_the_same_images_and_the_same_first_weights(quick):
    arms = ["KD", "pseudo-labels", "KD, shuffled", "KD, random", "hints"]
    for where in ("pool", "labelled"):
        one, *others = [students.images(arm, where, 100) for arm in arms]
        for data in others:
            assert torch.equal(data.columns[0], one.columns[0])
            batches = [next(d.batches(3))[0] for d in (one, data)]
            assert torch.equal(*batches)
    for student in students.STUDENTS:
        pairs = [students.network(student, 3).state_dict().values() for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))
    other = students.network("2 k", 4).state_dict()["head.2.weight"]
    assert not torch.equal(other, students.network("2 k", 3).state_dict()["head.2.weight"])


def test_the_first_of_two_that_learn_together_begins_as_the_others(quick, monkeypatch):
    committees, kind = [], students.Committee
    monkeypatch.setattr(students, "Committee", lambda *m: committees.append(m) or kind(*m))
    monkeypatch.setattr(students, "train", lambda *_: [])
    students._fitted("2 k", "mutual", 100, 0.01)
    ((first, second),) = committees
    weights = [m.head[-1].weight for m in (first, students.network("2 k", 100), second)]
    assert torch.equal(*weights[:2]) and not torch.equal(*weights[1:])


def test_no_label_but_those_of_the_fifty_is_seen(quick):
    rows, (_, truth) = students.labelled(100), students._world(False)[0].columns
    assert len(rows) == len(rows.unique()) == 50 and truth[rows].bincount().tolist() == [5] * 10
    for arm in ("KD", "KD, random", "mutual"):
        y = students.images(arm, "pool", 100).columns[1]
        assert torch.equal(y[rows], truth[rows]) and (y == -1).sum() == 850
    data = students.images("pseudo-labels", "pool", 100)
    guesses = data.columns[2].argmax(1).index_put((rows,), truth[rows])
    assert torch.equal(data.columns[1], guesses) and (guesses != truth).any()


def test_a_shuffled_teacher_says_the_same_things_about_other_images(quick):
    right, wrong = [students.images(arm, "pool", 100).columns[2] for arm in ("KD", "KD, shuffled")]
    assert not torch.equal(right, wrong)
    assert torch.equal(right.sort(0).values, wrong.sort(0).values)


def test_unseen_digits_are_those_of_the_validation_part_until_the_end():
    assert {final: len(students._world(final)[1]) for final in (False, True)} == {
        False: 300,
        True: 597,
    }
    assert not set(students.DRAWS) & set(students.TUNING_DRAWS)


def test_every_line_makes_the_updates_that_it_says(quick, monkeypatch):
    steps, kind = [], students.Step
    monkeypatch.setattr(students, "Step", lambda *things: steps.append(kind(*things)) or steps[-1])
    for where, updates in (("labelled", 20), ("labelled, at once", 20), ("pool", 40)):
        students.measure(**job(line("2 k", "KD", where, **SOFT, updates=updates)))
        states = steps.pop().optimizer.state.values()
        assert {int(state["step"]) for state in states} == {updates}
    lines = [*students.MIDDLE, *students.OTHERS, *students.SWEEP]
    sizes = {"labelled": 50, "labelled, at once": 50, "pool": 900}
    for names in lines:
        steps = sizes[names["where"]] / students.BATCH[names["where"]]
        assert names["updates"] % steps == 0 and steps == int(steps)


def test_parameter_counts():
    counts = {s: students.parameters(students.network(s)) for s in students.STUDENTS}
    assert counts == {"2 k": 2142, "20 k": 19810, "80 k": 77754}


@pytest.mark.parametrize("sharpness", [0.1, 1, 3, 30])
def test_calibration_error_is_that_of_torchmetrics(sharpness):
    random = torch.Generator().manual_seed(0)
    for n in (1, 7, 600):
        p = (sharpness * torch.randn(n, 10, generator=random)).softmax(1)
        y = torch.randint(10, (n,), generator=random)
        theirs = MulticlassCalibrationError(10, n_bins=15, norm="l1")(p, y)
        assert students.calibration_error(p, y) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_at_the_ends():
    sure = torch.eye(10)
    assert students.calibration_error(sure, torch.arange(10)) == 0
    assert students.calibration_error(sure, torch.arange(10).roll(1)) == 1
    even = torch.full((10, 10), 0.1)
    assert students.calibration_error(even, torch.arange(10)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1, 4, 16])
def test_smoothed_labels_are_as_soft_as_the_teacher(temperature):
    t = 5 * torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    share = students.matched_smoothing(t, temperature)
    target = torch.nn.functional.one_hot(torch.arange(10)) * (1 - share) + share / 10
    wanted = students.entropy((t.double() / temperature).softmax(1))
    assert students.entropy(target.double()) == pytest.approx(wanted, abs=1e-6)


def scored(jobs, best):
    "Rows whose accuracy is highest at a certain rate."
    return [j | {"accuracy": -abs(students.LADDER.index(j["rate"]) - best)} for j in jobs]


@pytest.mark.parametrize("best, rates", [(4, (3, 4, 5)), (5, (4, 5)), (0, (0, 1, 2)), (7, (7, 6))])
def test_rates_go_on_until_the_best_has_a_neighbour_on_both_sides(best, rates):
    rows, names = [], students.MIDDLE[0]
    while jobs := experiment.todo(students.tuning(rows, names), rows):
        rows += scored(jobs, best)
    asked = {students.LADDER.index(row["rate"]) for row in rows}
    assert students.tuned_rate(rows, names) == students.LADDER[best]
    assert set(rates) <= asked and len(rows) == 5 * len(asked)


def test_the_end_comes_after_all_tuning_and_uses_its_choices():
    rows = []
    while True:
        jobs = experiment.todo(students.plan(rows), rows)
        if {j["part"] for j in jobs} != {"tuning"}:
            break
        rows += [
            j | {"accuracy": 0.0}
            if j["student"] == "teacher"
            else scored([j], 4 if j["temperature"] == 8.0 else 5)[0]
            for j in jobs
        ]
    assert {j["part"] for j in jobs} == {"final"}
    assert {j["draw"] for j in jobs} == set(students.DRAWS)
    assert len(jobs) % 10 == 0 and len(jobs) >= 10 * (len(students.MIDDLE + students.OTHERS) + 1)
    assert {j["rate"] for j in jobs if j["student"] != "teacher"} <= {0.03, 0.1}


def test_the_cost_replaces_its_own_rows_and_no_others(tmp_path):
    path = tmp_path / "r.json"
    rows = [dict(part="tuning", draw=1), dict(part="cost", student="2 k")]
    experiment.write_results(path, dict(script="", rows=rows))
    threads = torch.get_num_threads()
    made = students.cost(path, repeats=2)
    found = experiment.read_results(path)["rows"]
    assert torch.get_num_threads() == threads
    assert found == [rows[0], *made] and len(made) == 4
    for row in made:
        assert row["single"] > 0 < row["many"] and row["bytes"] > 4 * row["parameters"]


def test_what_is_stored_is_complete():
    rows = students.stored()
    assert experiment.todo(students.plan(rows), rows) == []
    for names in [students.TEACHER, *students.MIDDLE, *students.OTHERS]:
        assert len(students.final(rows, names)) == 10
    for names in students.SWEEP:
        assert len(students.tried(rows, names)) >= 3
    assert len(students.sweep(rows)) == 11 and len(students.sweep(rows, "labelled")) == 7
    assert students.best_temperature(rows) in students.TEMPERATURES


def test_all_arms_of_a_draw_have_one_teacher():
    rows = [r for r in students.stored() if r["part"] != "cost"]
    for draw in (*students.DRAWS, *students.TUNING_DRAWS):
        of_draw = [r for r in rows if r["draw"] == draw]
        (teacher,) = [r["accuracy"] for r in of_draw if r["student"] == "teacher"]
        assert {r["teacher"] for r in of_draw} == {teacher}
    assert all(r["agreement"] == 1 for r in rows if r["student"] == "teacher")


def test_compression_puts_cost_and_accuracy_of_the_same_network_side_by_side():
    rows = [r for r in students.stored() if r["part"] != "cost"]
    made = [dict(part="cost", student=name) for name in ("teacher", *students.STUDENTS)]
    table = students.compression(rows + made)
    assert [row["student"] for row in table] == ["teacher", *students.STUDENTS]
    for row in table[1:]:
        scores = students.final(rows, line(row["student"], "KD", **SOFT))
        assert row["accuracy"] == pytest.approx(scores.mean().item())
    assert table[0]["accuracy"] > max(row["accuracy"] for row in table[1:])


def test_a_sweep_shows_every_point_at_its_own_rate():
    rows = students.stored()
    for where in ("pool", "labelled"):
        points = students.sweep(rows, where)
        best = max(points, key=lambda point: point["mean"])
        assert best["temperature"] == students.best_temperature(rows, where)
        for point in points:
            names = line("20 k", "KD", where, point["temperature"], point["alpha"])
            means = [students.at_rate(rows, names, r)[0] for r in students.tried(rows, names)]
            assert point["mean"] == max(means)
