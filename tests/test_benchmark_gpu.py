"""The benchmark for a GPU runs at toy size on a CPU, and its file says what it is."""

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "gpu.json"


@pytest.fixture(scope="module")
def gpu():
    """The script as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_gpu", ROOT / "benchmarks/gpu.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def run(gpu, tmp_path_factory):
    """The path and the results of one toy run."""
    path = tmp_path_factory.mktemp("gpu") / "toy.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu.logging, "disable", lambda level: None)
        gpu.main(["--toy", "--models", "vit_b_16", "--file", str(path)])
    return path, json.loads(path.read_text("utf-8"))


def rows(results):
    """The rows of all arms in all parts, with their names."""
    for model in results["models"].values():
        for arms in model.get("batches", {}).values():
            yield from arms.items()
    for part in results.get("loaders", {}).values():
        yield from part.items()
    for stages in results.get("stages", {}).values():
        for part in stages.values():
            yield from part.items()


def test_toy_run_holds_every_part(run, gpu):
    _, results = run
    assert results["complete"] and results["measured"] and results["toy"]
    assert results["n"] == results["settings"]["turns"] == 2
    assert set(results["models"]["vit_b_16"]["batches"]["8"]) == set(gpu.ARMS)
    assert set(results["loaders"]["vit_b_16"]) == {
        "bytes on the GPU",
        "bytes sent",
        "floats from a loader",
    }
    assert set(results["stages"]["vit_b_16"]) == {"head", "last"}
    assert {"torch", "gpu", "lightning", "fastai"} <= set(results["environment"])


def test_every_arm_has_raw_numbers_or_a_reason(run, gpu):
    _, results = run
    for name, row in rows(results):
        assert "failed" not in row, f"{name}: {row['failed']}"
        if "absent" in row:
            assert row["absent"].endswith("is not installed") and gpu.missing(name)
        else:
            assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0


def test_what_needs_a_gpu_says_so(run, gpu):
    _, results = run
    assert set(results["silence"]["vit_b_16"].values()) == {gpu.NEEDS}
    assert results["replay"]["vit_b_16"]["8"] == {"needs": gpu.NEEDS}
    assert results["models"]["vit_b_16"]["batches"]["8"]["plain"]["peak_bytes"] == gpu.NEEDS


def test_images_per_second_come_from_the_raw_seconds(run):
    _, results = run
    model = results["models"]["vit_b_16"]
    ceiling = statistics.median(results["ceiling"]["operations_per_second"])
    for arm in ("plain", "plain, best", "ftlearn", "ftlearn, fast"):
        row = model["batches"]["8"][arm]
        images = statistics.median([8 * results["settings"]["updates"] / s for s in row["seconds"]])
        assert row["images_per_second"]["median"] == pytest.approx(images)
        assert row["images_per_second"]["n"] == 2
        share = images * model["operations_per_image"] / ceiling
        assert row["share_of_ceiling"] == pytest.approx(share)


def test_a_second_call_measures_nothing(run, gpu, monkeypatch):
    path, before = run
    nothing = lambda *_, **__: pytest.fail("measured again")
    for name in ("prepared", "timed", "whole", "kept", "matrix_rate", "cost"):
        monkeypatch.setattr(gpu, name, nothing)
    monkeypatch.setattr(gpu.logging, "disable", lambda level: None)
    gpu.main(["--toy", "--models", "vit_b_16", "--file", str(path)])
    assert json.loads(path.read_text("utf-8")) == before


def test_only_a_missing_turn_is_measured(run, gpu, tmp_path, monkeypatch):
    _, results = run
    path = tmp_path / "half.json"
    results = json.loads(json.dumps(results))
    row = results["models"]["vit_b_16"]["batches"]["8"]["ftlearn"]
    old = [row["seconds"].pop(), row["seconds"][0]]
    path.write_text(json.dumps(results), "utf-8")
    seen, timed = [], gpu.timed
    monkeypatch.setattr(gpu, "timed", lambda *a: seen.append(timed(*a)) or seen[-1])
    monkeypatch.setattr(gpu.logging, "disable", lambda level: None)
    gpu.main(["--toy", "--models", "vit_b_16", "--file", str(path)])
    new = json.loads(path.read_text("utf-8"))["models"]["vit_b_16"]["batches"]["8"]["ftlearn"]
    assert len(seen) == 1 and new["seconds"] == [old[1], seen[0]]
    assert len(new["first_update_seconds"]) == 2


def test_out_of_minutes_the_file_is_whole(gpu, tmp_path):
    path = tmp_path / "short.json"
    results = gpu.measure(path, ["vit_b_16"], gpu.size(True), minutes=1e-9)
    assert "complete" not in results and not results["targets"]
    assert json.loads(path.read_text("utf-8")) == results


def test_other_settings_are_not_mixed_in_and_other_models_are(run, gpu):
    path, before = run
    with pytest.raises(SystemExit, match="another turns: give another --file"):
        gpu.begun(path, gpu.size(True)._replace(turns=3), ["vit_b_16"])
    both = gpu.begun(path, gpu.size(True), ["resnet50"])
    assert both["settings"]["models"] == ["vit_b_16", "resnet50"]
    assert both["models"] == before["models"]


def test_out_of_memory_is_a_result_and_other_failures_are_tried_again(gpu):
    how, full, broken = gpu.size(True), {}, {}
    with gpu.recorded(full):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
    with gpu.recorded(broken):
        raise RuntimeError("no kernel")
    assert full["failed"] == "out of memory: CUDA out of memory. Tried to allocate"
    assert gpu.done(full, how) and not gpu.done(broken, how)


def test_the_clock_starts_after_the_lead(gpu):
    how, drawn = gpu.size(True), []
    run = lambda turn: drawn.extend(len(x) for x, _ in turn.batches())
    assert gpu.timed(run, gpu.pictures(how), 8, how) > 0
    assert drawn == [8] * (how.lead + how.updates + 1)


def test_turns_repeat_whole_batches(gpu):
    turn = gpu.Turn([torch.arange(20)], 8, 5, {})
    batches = [x.tolist() for (x,) in turn.batches()]
    assert batches[0] == batches[2] == batches[4] and batches[1] == batches[3]
    assert len(set(batches[0] + batches[1])) == 16 and turn.steps == 5


def test_targets_are_computed(gpu):
    fast = dict(seconds=[1.0, 1.0, 1.0])
    arms = {"ftlearn, fast": fast, "plain": dict(seconds=[1.6] * 3)}
    arms |= {"plain, best": dict(seconds=[0.9] * 3), "lightning": dict(failed="out of memory")}
    results = dict(models=dict(net=dict(batches={"64": arms})))
    results |= dict(
        replay=dict(net={"64": dict(ratio=1.04)}), silence=dict(net=dict(plain="a read"))
    )
    reached = [target["reached"] for target in gpu.targets(results)]
    assert reached == [False, True, "not measured", "not measured", True, False]


def test_stored_results_are_measured_or_say_that_they_are_not():
    stored = json.loads(STORED.read_text("utf-8"))
    if stored["measured"] == "not measured":
        assert set(stored) == {"measured", "why", "script"} and "GPU" in stored["why"]
        return
    assert not stored["toy"] and stored["n"] >= 2
    assert {"gpu", "torch", "driver", "cuda"} <= set(stored["environment"])
    assert any(len(row.get("seconds", ())) == stored["n"] for _, row in rows(stored))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would measure")
def test_without_a_gpu_nothing_is_measured_and_nothing_is_lost(gpu, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    new = gpu.main(["--file", str(path)])
    assert new == json.loads(path.read_text("utf-8")) and new["measured"] == "not measured"
    assert "There is no GPU here" in capsys.readouterr().out
    path.write_text('{"measured": true}', "utf-8")
    gpu.main(["--file", str(path)])
    assert path.read_text("utf-8") == '{"measured": true}'


@pytest.mark.parametrize("name, operations", [("resnet50", 24.6e9), ("vit_b_16", 105.6e9)])
def test_operations_of_an_image_are_those_of_the_papers(gpu, name, operations):
    how = gpu.size(True)._replace(toy=False, side=224, classes=1000)
    model, x = gpu.model_of(name, how).to("meta"), torch.empty(1, 3, 224, 224, device="meta")
    y = torch.zeros(1, dtype=torch.int64, device="meta")
    count = lambda: torch.nn.functional.cross_entropy(model(x), y).backward()
    assert gpu.cost(count).operations == pytest.approx(operations, rel=0.02)


@pytest.fixture
def recording(monkeypatch):
    """A CPU that plays a GPU: a recording is a call, and nothing is waited for."""
    from ftlearn import speed

    monkeypatch.setattr(speed, "_RECORDABLE", {"cpu"})
    monkeypatch.setattr(speed, "_recorded", lambda function, _: (function(), function))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)


@pytest.mark.parametrize("record", [False, True])
def test_a_silent_step_is_found_silent_and_another_is_named(gpu, recording, record):
    columns, how = gpu.pictures(gpu.size(True)), gpu.size(True)

    def step(objective):
        model = gpu.model_of("vit_b_16", how)
        return gpu.Step(model, objective, gpu.adamw(model, fused=True))

    def loud(model, x, y):
        raise RuntimeError("called a synchronizing CUDA operation")

    assert gpu.silent(step(gpu.cross_entropy()), columns, 8, record) is True
    said = gpu.silent(step(loud), columns, 8, record)
    assert said == "RuntimeError: called a synchronizing CUDA operation"


def test_a_replay_is_compared_with_its_kernels(gpu, recording, monkeypatch):
    how = gpu.size(True)
    monkeypatch.setattr(gpu, "fast", gpu.graphed)
    monkeypatch.setattr(gpu, "kernels", lambda replay: 2.0)
    monkeypatch.setattr(gpu, "replays", lambda replay: 2.08)
    example = [c[:8] for c in gpu.pictures(how)]
    row = gpu.replayed(gpu.model_of("vit_b_16", how), example, how)
    assert row == dict(kernel_seconds=2.0, seconds=[2.08] * 2, ratio=pytest.approx(1.04))


def test_seconds_of_a_replay_are_of_one_among_many(gpu):
    calls = []
    assert gpu.replays(lambda: calls.append(1), 7) > 0 and len(calls) == 7


def test_turns_of_an_interrupted_run_stay_beside_each_other(gpu):
    """The arm that was ahead waits, so that the n-th turns of all arms are neighbours."""
    how, calls = gpu.size(True)._replace(turns=3), []
    arms = {"a": dict(seconds=[1.0, 1.0]), "b": dict(seconds=[1.0]), "c": {}}
    measure = lambda name: calls.append(name) or 2.0
    gpu.in_turns({name: name for name in arms}, arms, measure, how, lambda: None)
    assert "".join(calls[:3]) in ("cbc", "ccb") and sorted(calls[3:]) == ["a", "b", "c"]
    assert all(len(row["seconds"]) == 3 for row in arms.values())
