"""Frozen means constant: parameters, buffers and outputs, whatever happens around them."""

import copy

import pytest
import torch
from torch import nn

from ftlearn.data import Columns
from ftlearn.features import cache
from ftlearn.freezing import fingerprint, freeze, is_frozen, report, unfreeze
from ftlearn.losses import cross_entropy
from ftlearn.models import glyphnet, split, stages
from ftlearn.training import Step, eval_mode, evaluate, fit, train, train_mode


def optimizer(module, kind=torch.optim.AdamW, **settings):
    return kind([p for p in module.parameters() if p.requires_grad], 1e-2, **settings)


def update(model, images, epochs=2):
    data = Columns(*images, batch_size=8, shuffle=True)
    return fit(
        Step(model, cross_entropy(), optimizer(model, weight_decay=0.1)), data, epochs=epochs
    )


def bits(module):
    """Every parameter and buffer, those that are not saved too."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: t.detach().clone() for name, t in named}


def moved(module, before):
    return {name for name, t in bits(module).items() if not torch.equal(t, before[name])}


def middle(model):
    names = [name for name, _ in stages(model)]
    return names[len(names) // 2]


@pytest.mark.parametrize("cut", ["head", "middle"])
def test_parameters_and_buffers_keep_their_bits(model, images, cut):
    body, head = split(model, "head" if cut == "head" else middle(model))
    freeze(body)
    before, rest = bits(body), bits(head)
    model.train()
    update(model, images)
    assert not moved(body, before)
    assert moved(head, rest) >= {name for name, _ in head.named_parameters()}


def test_the_naive_recipe_moves_the_buffers_and_nothing_else(model, images):
    body, _ = split(model, "head")
    body.requires_grad_(False)
    before = bits(body)
    update(model, images)
    statistics = {n for n in before if n.endswith(("running_mean", "running_var", "_tracked"))}
    assert moved(body, before) == statistics


def test_frozen_outputs_are_those_of_evaluation_mode(model, images):
    body, _ = split(model, "head")
    freeze(body)
    expected = body.eval()(images[0])
    train_mode(model)
    assert torch.equal(body(images[0]), expected)
    assert model.training and not any(part.training for part in body.modules())


def test_train_called_before_every_epoch_does_no_harm(model, images):
    body, _ = split(model, "head")
    before = bits(freeze(body))
    step = Step(model, cross_entropy(), optimizer(model))
    for tick in train(step, Columns(*images, batch_size=8), epochs=3):
        if tick.last:
            model.train()
    assert not moved(body, before)


def everything_that_moves():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Dropout(0.5), nn.Identity())
    block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), inner, nn.Dropout1d(0.3))
    block.register_buffer("scratch", torch.zeros(2), persistent=False)
    return nn.Sequential(block, nn.Linear(6, 3))


def test_dropout_and_norms_without_parameters_are_quiet():
    model, x = everything_that_moves(), torch.randn(40, 6) + 3
    before = bits(freeze(model[0]))
    fit(Step(model, cross_entropy(), optimizer(model)), Columns(x, torch.arange(40) % 3), epochs=3)
    assert not moved(model[0], before)
    assert torch.equal(train_mode(model)[0](x), eval_mode(model)[0](x))


def test_freeze_marks_every_module_and_says_which():
    model = freeze(everything_that_moves())
    assert all(part.frozen for part in model.modules()) and is_frozen(model)
    unfreeze(model[1])
    assert not is_frozen(model) and is_frozen(model[0]) and not is_frozen(model[1])
    assert model[1].weight.requires_grad and not model[0][0].weight.requires_grad


def test_freeze_and_unfreeze_return_the_same_module_and_can_be_repeated():
    model = everything_that_moves()
    assert freeze(model) is model and freeze(model) is model and unfreeze(model) is model
    assert all(p.requires_grad for p in model.parameters()) and not is_frozen(model)
    assert is_frozen(copy.deepcopy(freeze(model)))


def test_unfrozen_statistics_and_dropout_live_again():
    model, x = everything_that_moves(), torch.randn(40, 6) + 3
    unfreeze(freeze(model))
    before = bits(model)
    fit(Step(model, cross_entropy(), optimizer(model)), Columns(x, torch.arange(40) % 3))
    assert moved(model, before) == set(before) - {"0.scratch"}
    assert not torch.equal(train_mode(model)(x), model(x))


def test_unfreeze_leaves_integer_parameters_alone():
    model = nn.Linear(2, 2)
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    unfreeze(freeze(model))
    assert model.weight.requires_grad and not model.table.requires_grad


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_stale_gradient_moves_nothing(kind):
    layer = nn.Linear(3, 3)
    settings = dict(momentum=0.9) if kind is torch.optim.SGD else {}
    stale = kind(layer.parameters(), 0.1, weight_decay=0.1, **settings)
    layer(torch.ones(1, 3)).sum().backward()
    stale.step()
    stale.zero_grad(set_to_none=False)
    before = bits(freeze(layer))
    stale.step()
    assert not moved(layer, before)


def test_a_frozen_parameter_in_the_optimizer_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    everything = torch.optim.SGD(model.parameters(), 0.1)
    freeze(model[0])
    with pytest.raises(ValueError, match=r"'0\.weight' is frozen but in the optimizer"):
        Step(model, cross_entropy(), everything)


def test_optimizer_set_is_trainable_set_after_a_freeze(model, images):
    freeze(split(model, "head")[0])
    step = Step(model, cross_entropy(), optimizer(model))
    held = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    update(model, images, epochs=1)


def test_evaluate_leaves_the_mark_and_the_modes(model, images):
    body, _ = split(model, "head")
    freeze(body)
    train_mode(model)
    modes = [part.training for part in model.modules()]
    evaluate(model, Columns(*images))
    assert modes == [part.training for part in model.modules()] and is_frozen(body)


@pytest.mark.parametrize("wrong", [(nn.Linear(1, 1),) * 2, nn.Linear(1, 1).parameters(), "layer1"])
@pytest.mark.parametrize("call", [freeze, unfreeze, report])
def test_what_is_no_module_is_refused(call, wrong):
    with pytest.raises(TypeError, match=f"{call.__name__} takes a module, not a"):
        call(wrong)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_a_batch_norm_without_statistics_is_refused_and_nothing_is_changed(kind):
    norm = kind(4, track_running_stats=False)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5), norm))
    with pytest.raises(ValueError, match=rf"'1\.1', a {kind.__name__}, constant: .*\.$") as info:
        freeze(model)
    assert len(str(info.value)) < 400 and "\n" not in str(info.value)
    assert not any(getattr(part, "frozen", False) for part in model.modules())
    assert model.training and all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match=f"freeze cannot make this {kind.__name__} constant"):
        freeze(norm)
    freeze(model[0])
    with pytest.raises(ValueError, match="cache needs a frozen module"):
        cache(model, Columns(torch.zeros(2, 4), torch.zeros(2)))


@pytest.mark.parametrize("stores", [False, True])
def test_instance_norm_and_a_switched_off_batch_norm_can_be_constant(stores):
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 2
    for norm in nn.InstanceNorm2d(3, track_running_stats=stores), nn.BatchNorm2d(3):
        norm(x)
        norm.track_running_stats = stores
        before = bits(freeze(norm))
        whole = train_mode(norm)(x)
        assert torch.allclose(whole[:2], norm(x[:2]), atol=1e-6) and not moved(norm, before)


def test_freeze_stops_the_vectors_of_spectral_norm():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    before = bits(layer)
    train_mode(layer)(torch.ones(2, 3))
    assert moved(layer, before)
    before = bits(freeze(layer))
    train_mode(layer)(torch.ones(2, 3))
    assert not moved(layer, before)


def test_fingerprint_sees_every_bit_and_nothing_else(model):
    print_before = fingerprint(model)
    assert fingerprint(copy.deepcopy(model).eval()) == print_before == fingerprint(freeze(model))
    with torch.no_grad():
        p = next(model.parameters())
        p.view(-1)[0] = torch.nextafter(p.view(-1)[0], torch.tensor(9.0, device=p.device))
    assert fingerprint(model) != print_before


def test_fingerprint_sees_names_types_shapes_and_unsaved_buffers():
    def named(name, value, persistent=True):
        module = nn.Module()
        module.register_buffer(name, value, persistent)
        return fingerprint(module)

    zeros = torch.zeros(4)
    prints = [
        named("a", zeros),
        named("b", zeros),
        named("a", zeros.view(2, 2)),
        named("a", zeros.int()),
        named("a", torch.ones(4), persistent=False),
        named("a", zeros.bfloat16()),
        named("a", torch.zeros(())),
    ]
    assert len(set(prints)) == len(prints)
    assert named("a", torch.arange(6.0).view(2, 3).T) == named(
        "a", torch.tensor([[0.0, 3], [1, 4], [2, 5]])
    )


def by_name(model):
    """The rows of a report, with numbers as numbers."""
    table = report(model)
    assert table.header == ["module", "parameters", "trainable", "mode"]
    rows = {r[0]: (*(int(n.replace(",", "")) for n in r[1:3]), r[3]) for r in table.rows}
    assert len(rows) == len(table.rows) and table.rows[-1][0] == "total"
    return rows


def counts(model):
    """Parameters and trainable parameters, counted without ftlearn."""
    sizes = [(p.numel(), p.numel() * p.requires_grad) for p in model.parameters()]
    return tuple(map(sum, zip(*sizes)))


def test_report_counts_every_parameter(model):
    for at in ("head", middle(model)):
        body, rest = split(model, at)
        freeze(body)
        rows = by_name(model)
        total = rows.pop("total")
        leaves = [row for row in rows.values() if row[2] != "partly"]  # the others are opened
        assert total[:2] == counts(model) == tuple(sum(row[i] for row in leaves) for i in (0, 1))
        unfreeze(model)
    rows = by_name(model)
    assert rows["total"][2] == "learns" and rows["total"][0] == rows["total"][1]
    assert by_name(freeze(model))["total"] == (counts(model)[0], 0, "frozen")


def test_report_lists_the_stages_in_order_of_forward(model):
    names = [row[0] for row in report(freeze(model)).rows]
    listed = [name for name, _ in stages(model)]
    assert [name for name in names if name in listed] == listed


def test_report_names_what_the_model_itself_holds():
    from families import small_vit

    model = freeze(small_vit())
    assert by_name(model)["class_token"] == (16, 0, "frozen")
    unfreeze(model.encoder.ln)
    assert by_name(model)["encoder.pos_embedding"] == (5 * 16, 0, "frozen")


def test_report_shows_the_trap_and_its_cure():
    model = glyphnet(widths=(4, 8, 8))
    body, _ = split(model, "head")
    body.requires_grad_(False)
    rows = by_name(model)
    assert rows["normalize"] == (0, 0, "constant") and rows["head"][2] == "learns"
    assert {rows[n][2] for n in ("stem", "layer1", "layer2", "layer3")} == {"statistics move"}
    assert by_name(model.eval())["stem"][2] == "statistics move"  # `train` will switch it back
    freeze(body)
    assert {by_name(model)[n][2] for n in ("stem", "layer1", "layer2", "layer3")} == {"frozen"}
    model.train()
    assert by_name(model)["stem"][2] == "frozen, but in training mode"
    train_mode(model)
    assert by_name(model)["stem"][2] == "frozen"


def test_report_says_statistics_move_exactly_where_buffers_move(images):
    x, y = images[0][:, :1, :8, :8], images[1]
    model = glyphnet(widths=(4, 8, 8))
    model[:4].requires_grad_(False)
    freeze(model.layer2)
    before, rows = bits(model), by_name(model)
    update(model, (x, y))
    changed = {name.split(".")[0] for name in moved(model, before)}
    quiet = {name for name, row in rows.items() if row[2] in ("frozen", "constant")}
    assert quiet == {"normalize", "layer2"} and not changed & quiet
    assert {"stem", "layer1"} <= changed and rows["stem"][2] == rows["layer1"][2]


def test_report_opens_what_is_partly_frozen():
    model = glyphnet(widths=(4, 8, 8))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            freeze(part)
    rows = by_name(model)
    assert rows["layer3"][2] == "partly" and rows["layer1"][0] > rows["layer1"][1] > 0
    assert rows["layer3: 3 Conv2d"][2] == "learns" and rows["layer3: 3 BatchNorm2d"][2] == "frozen"
    freeze(unfreeze(model).layer3.conv2)
    rows = by_name(model)
    assert rows["layer3"][2] == "partly" and rows["layer2"][2] == "learns"
    assert rows["layer3.conv2"] == (8 * 8 * 9, 0, "frozen")
    assert rows["layer3.conv1"][2] == rows["layer3.bn2"][2] == "learns"
    model.layer3.conv1.weight.requires_grad = False
    model.head[-1].bias.requires_grad = False
    rows = by_name(model)
    assert rows["head"] == (90, 80, "partly")
    assert rows["head.weight"] == (80, 80, "learns") and rows["head.bias"] == (10, 0, "frozen")


def test_report_knows_dropout_norms_without_weights_and_odd_marks():
    model = everything_that_moves()
    model[0].requires_grad_(False)
    assert by_name(model)["0.2"][2] == "statistics move"  # a batch norm and a dropout
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert by_name(model)["1"] == (0, 0, "dropout active")
    assert by_name(freeze(model))["1"] == (0, 0, "frozen")
    norm = freeze(nn.BatchNorm1d(2)).requires_grad_(True)
    rows = by_name(nn.Sequential(norm, nn.Linear(2, 2)))
    assert rows["0"] == (4, 4, "learns, in evaluation mode")


def test_report_says_the_worst_first_and_never_calls_a_batch_dependent_norm_frozen():
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), norm, nn.Linear(2, 2))
    model[:3].requires_grad_(False)
    rows = by_name(model)
    assert rows["0"] == (4, 0, "statistics move") and rows["2"] == (4, 0, "depends on the batch")
    assert by_name(model[:3])["total"] == (8, 0, "depends on the batch")
    bare = nn.BatchNorm1d(2, affine=False, track_running_stats=False)
    assert by_name(nn.Sequential(bare, nn.Linear(2, 2)))["0"] == (0, 0, "depends on the batch")


def test_report_works_without_a_linear_head_and_on_a_bare_layer():
    rows = by_name(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), freeze(nn.BatchNorm1d(3))))
    assert rows["0"] == (9, 9, "learns") and rows["2"] == (6, 0, "frozen")
    assert rows["total"] == (15, 9, "partly")
    assert by_name(nn.Linear(2, 3))["weight"] == (6, 6, "learns")
    assert by_name(freeze(nn.BatchNorm1d(2)))["total"] == (4, 0, "frozen")
    assert by_name(nn.ReLU()) == {"total": (0, 0, "constant")}


class Attention(nn.Module):
    """Dropout as a number, as many attention layers have it."""

    def __init__(self):
        super().__init__()
        self.dropout, self.inside, self.out = 0.1, nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        """Drop, mix, drop."""
        drop = nn.functional.dropout
        return self.out(drop(self.inside(x), self.dropout, self.training))


def test_report_shows_a_module_that_moves_around_its_children_once():
    model = Attention()
    freeze(model.inside)
    assert by_name(model) == {
        "itself": (0, 0, "dropout active"),
        "inside": (12, 0, "frozen"),
        "head": (12, 12, "learns"),
        "total": (24, 12, "partly"),
    }
    inner = nn.Sequential(nn.Sequential(nn.Linear(3, 3), Attention()), nn.Linear(3, 2))
    freeze(inner[0][1].inside)
    rows = by_name(inner)
    assert rows["total"] == (44, 32, "partly") and sum(n.endswith("itself") for n in rows) == 1


def test_report_counts_a_shared_parameter_once_in_the_total():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    rows = by_name(model)
    assert rows["0"][0] == rows["head"][0] == 12 and rows["total"][0] == 15


def test_report_reads_as_text_and_as_html_and_changes_nothing(model):
    freeze(split(model, "head")[0])
    model.train()
    before, modes = fingerprint(model), [part.training for part in model.modules()]
    text, page = repr(report(model)), report(model)._repr_html_()
    assert before == fingerprint(model) and modes == [m.training for m in model.modules()]
    assert text.startswith("module") and page.count("<tr>") == text.count("\n") + 1


def compilable():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, 3)), torch.randn(16, 4), torch.arange(16) % 3


def one_step(model, x, y):
    """One update; returns the gradients by name, and the names that did not move."""
    step = Step(train_mode(model), cross_entropy(), optimizer(model, torch.optim.SGD))
    before = bits(model)
    step.objective(model, x, y)[0].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    step.update()
    named = {n.removeprefix("_orig_mod."): g for n, g in gradients.items()}
    return named, {n for n in gradients if torch.equal(bits(model)[n], before[n])}


def in_place(model):
    model.compile(backend="aot_eager")
    return model


def wrapped(model):
    return torch.compile(model, backend="aot_eager")


@pytest.mark.parametrize("form", [in_place, wrapped])
def test_unfreeze_after_compile_really_trains(form):
    eager, x, y = compilable()
    compiled = form(copy.deepcopy(eager))
    for net in (eager, compiled):
        freeze(getattr(net, "_orig_mod", net)[0])
        gradients, _ = one_step(net, x, y)
        assert set(gradients) == {"1.weight", "1.bias"}
        unfreeze(net)
    expected, (found, still) = one_step(eager, x, y)[0], one_step(compiled, x, y)
    assert set(found) == set(expected) == {n for n, _ in eager.named_parameters()} and not still
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("form", [in_place, wrapped])
def test_freeze_after_compile_really_freezes(form):
    model, x, y = compilable()
    net = form(model)
    one_step(net, x, y)
    before = bits(freeze(model[0]))
    gradients, _ = one_step(net, x, y)
    assert set(gradients) == {"1.weight", "1.bias"} and not moved(model[0], before)
    assert all(p.grad is None for p in model[0].parameters())


def test_gradual_unfreezing_never_runs_out_of_graphs():
    """After eight graphs of one function torch would go on uncompiled."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(12)])
    x, y = torch.randn(6, 3), torch.arange(6) % 3
    freeze(model).compile(backend=backend)
    for k in reversed(range(12)):
        unfreeze(model[k])
        gradients, _ = one_step(model, x, y)
        assert len(gradients) == 2 * (12 - k) and all(g is not None for g in gradients.values())
        assert len(graphs) == 12 - k


def test_report_of_a_compiled_model_is_that_of_the_model():
    model, x, _ = compilable()
    freeze(model[0])
    assert repr(report(wrapped(model))) == repr(report(model)) == repr(report(in_place(model)))
