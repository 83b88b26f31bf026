"""The benchmarks of the loop, of importing, of growth and of teachers, at toy size."""

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
RATIO = {"median", "quartiles"}
STORED = ("loop", "imports", "growth", "distillation")


@pytest.fixture
def script(monkeypatch):
    """Import a script as it would be run; the number of threads comes back."""
    monkeypatch.syspath_prepend(FOLDER)
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


def read(path, name):
    """A results file, with what every one of them says."""
    results = json.loads(path.read_text("utf-8"))
    assert results["script"] == f"python benchmarks/{name}.py"
    assert {"torch", "processor", "threads"} <= set(results["environment"])
    assert results.get("n", results.get("repeats")) >= 1
    return results


@pytest.mark.parametrize("name", STORED)
def test_stored_results_say_how_they_were_made(name):
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there yet: make bench writes it")
    read(path, name)


def test_the_loop_is_measured_in_a_process_of_its_own(script, monkeypatch, tmp_path):
    loop, path = script("loop"), tmp_path / "loop.json"
    monkeypatch.setattr(loop, "ARMS", {"fit": loop.ARMS["fit"]})
    loop.main(2, 100, path)
    arm = read(path, "loop")["arms"]["fit"]
    assert set(arm) == {"microseconds", "over_plain", "over_plain_select"}
    assert set(arm["over_plain"]) == RATIO and arm["microseconds"]["plain"] > 0


def test_every_loop_does_the_same_updates(script, monkeypatch):
    """The bare loops, `train` and `fit` end with the same weights."""
    loop, heads = script("loop"), []
    original = loop.head
    monkeypatch.setattr(loop, "head", lambda: heads.append(original()) or heads[-1])
    for arm in (loop.plain, loop.plain_select, loop.train_arm, loop.fit_arm):
        arm(loop.features(), 200)
    first, *others = [model.weight for model, _ in heads]
    assert all(torch.equal(first, other) for other in others)


def test_ready_batches_are_timed_from_draw_to_draw(script):
    loop = script("loop")
    stream = loop.Stream(loop.features(), 100, named=True)
    batches = list(stream)
    assert len(batches) == len(stream) == 100 and stream.seconds > 0
    assert set(batches[0]) == {"x", "labels"}


@pytest.mark.parametrize("name", ["accelerate", "fastai", "lightning", "trainer"])
def test_a_library_in_its_loop(script, name):
    loop = script("loop")
    if not find_spec(loop.PEERS[name]):
        pytest.skip(f"{loop.PEERS[name]} is not installed here: it is in the extra bench")
    assert loop.alone(name, 2, 100)["over_plain"]["median"] > 0


def test_imports_are_measured_in_turn(script, monkeypatch, tmp_path):
    imports, path = script("imports"), tmp_path / "imports.json"
    monkeypatch.setattr(imports, "BASE", "import json")
    monkeypatch.setattr(imports, "LIBRARIES", dict(email="import email", none="import no_such"))
    imports.main(2, ["email", "none"], path)
    results = read(path, "imports")
    assert set(results["seconds"]) == {"torch", "email"}
    assert results["over_torch"]["torch"]["median"] == 1
    assert set(results["over_torch_without_collector"]["email"]) == RATIO


def test_the_names_that_are_imported_exist(script):
    exec(script("imports").LIBRARIES["ftlearn"], {})


def test_growth_goes_on_where_it_stopped(script, monkeypatch, tmp_path):
    growth, path = script("growth"), tmp_path / "growth.json"
    asked = lambda job: asked.jobs.append(job) or growth.measure(**job)
    asked.jobs = []
    monkeypatch.setattr(growth, "alone", asked)
    monkeypatch.setattr(growth, "copies", small(growth))
    jobs = growth.plan((1,), ("plain", "ftlearn"), {"probe": 1, "plain loop": 5}, draws=1)
    growth.main(jobs[:3], path)
    growth.main(jobs[:-1], path)  # the last one pretrains
    assert asked.jobs == jobs[:-1]
    results = read(path, "growth")
    rows = {
        part: [r for r in results["rows"] if r["part"] == part] for part in ("growth", "accuracy")
    }
    assert len(rows["growth"]) == 4 and rows["growth"][0]["images_per_second"] > 0
    assert results["to_target"]["probe"]["n"] == 1
    found = results["to_target"]["plain loop"]
    assert (found["seconds"] is None) == (found["reached"] == 0)  # said, not hidden


def small(growth):
    """The function that makes the data, with a tenth of them."""
    original = growth.copies

    def few(times):
        pool, valid = original(times)
        return pool.take(slice(100)), valid

    return few


def test_copies_differ_by_a_level_at_most(script):
    growth = script("growth")
    data, _ = growth.copies(3)
    first, *others = data.columns[0].split(900)
    for other in others:
        assert (other.int() - first.int()).abs().max() == 1 and other.max() <= 16
    assert torch.equal(data.columns[1][:900], data.columns[1][900:1800])


def test_what_is_not_reached_is_said(script):
    row = script("growth").reach("from scratch", 0, 5, target=1.1)
    assert row["reached"] is False and row["looks"] == 1 and row["seconds"] > 0


def test_a_teacher_is_measured(script, tmp_path):
    distillation, path = script("distillation"), tmp_path / "distillation.json"
    distillation.main(2, path)
    results = read(path, "distillation")
    assert {"plain", "cached", "asked anew"} <= set(results["epoch_ms"])
    assert set(results["cached_over_plain"]) == RATIO
    there = find_spec("torchdistill") is not None
    assert (results["torchdistill"] is not None) == there == bool(results["over_cached"])


def test_torchdistill_has_the_same_loss(script):
    pytest.importorskip("torchdistill", reason="torchdistill is in the extra bench")
    import copy

    from ftlearn.distill import knowledge_distillation
    from ftlearn.freezing import freeze
    from ftlearn.glyphs import digits
    from ftlearn.models import glyphnet

    torch.manual_seed(0)
    pool, x, y = digits(batch_size=50)[0], *next(digits(batch_size=50)[0].batches())
    teacher, student = freeze(glyphnet(10, "letters")).eval(), glyphnet(10, widths=(8, 8, 8))
    box = script("distillation").torchdistill_box(student, teacher, pool)
    box.pre_epoch_process(epoch=0)
    with torch.no_grad():
        soft = teacher(x)
    expected, _ = knowledge_distillation()(copy.deepcopy(student).train(), x, y, soft)
    torch.testing.assert_close(box.forward_process(x, y, {}), expected)
