"""Columns and the guard: order, batches, views, leaks, and the sentence of every refusal."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ftlearn.data import Columns, HeldOut, generator, order, overlap


def numbered(examples, **settings):
    """Examples that are their own row numbers, and labels that belong to them."""
    rows = torch.arange(examples)
    return Columns(rows, 10 * rows, **settings)


def rows_of(data, **when):
    return [b[0].tolist() for b in data.batches(**when)]


# The order


def test_generator_is_a_function_of_its_key():
    draw = lambda *key: torch.randint(2**60, (), generator=generator(*key)).item()
    keys = [(a, b) for a in range(20) for b in range(20)] + [(0,), (0, 0, 0), (3,), (3, 0, 0), ()]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert all(draw(*key) == draw(*key) for key in keys)


def test_the_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = order(100, 5, 7)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, order(100, 5, 7))
    assert torch.equal(first.sort().values, torch.arange(100))
    orders = {tuple(order(100, s, e).tolist()) for s in range(8) for e in range(8)}
    assert len(orders) == 64


def test_the_order_is_the_same_in_every_run():
    """A change of this order changes every stored result."""
    assert order(10, 0, 0).tolist() == [4, 9, 2, 0, 5, 6, 3, 1, 7, 8]


# Batches


@pytest.mark.parametrize("examples", [1, 2, 7, 8, 9, 16, 17, 18, 31])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_has_every_example_once_in_batches_of_one_size(examples, shuffle):
    data = numbered(examples, batch_size=8, shuffle=shuffle)
    batches = rows_of(data, epoch=4)
    assert len(batches) == data.steps
    assert all(len(b) == 8 for b in batches[:-1]) and 1 <= len(batches[-1]) <= 8
    lonely = shuffle and examples > 8 and examples % 8 == 1
    seen = sum(batches, [])
    assert len(set(seen)) == len(seen) == examples - lonely
    assert seen == list(range(examples)) or shuffle


def test_the_lonely_example_comes_back():
    data = numbered(17, batch_size=8, shuffle=True)
    left_out = [set(range(17)) - set(sum(rows_of(data, epoch=e), [])) for e in range(20)]
    assert all(len(out) == 1 for out in left_out) and len(set.union(*left_out)) > 5


def test_columns_stay_together():
    for x, y in numbered(50, batch_size=8, shuffle=True).batches(epoch=2):
        assert torch.equal(10 * x, y)


@pytest.mark.parametrize("examples", [16, 17, 20])
@pytest.mark.parametrize("shuffle", [False, True])
def test_start_goes_on_in_the_middle_of_an_epoch(examples, shuffle):
    data = numbered(examples, batch_size=4, shuffle=shuffle, seed=9)
    whole = rows_of(data, epoch=3)
    for start in range(data.steps + 2):
        assert rows_of(data, epoch=3, start=start) == whole[start:]


def test_in_order_nothing_is_copied():
    x = torch.arange(10.0)
    assert next(Columns(x, batch_size=4).batches())[0].data_ptr() == x.data_ptr()


def test_equals_a_data_loader():
    x, y = torch.randn(50, 3), torch.arange(50)
    sampler = order(50, 2, 1).tolist()
    loader = DataLoader(TensorDataset(x, y), batch_size=8, sampler=sampler)
    ours = Columns(x, y, batch_size=8, shuffle=True, seed=2).batches(epoch=1)
    for (a, b), (c, d) in zip(loader, ours, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_arrays_and_lists_become_tensors():
    data = Columns(np.zeros((3, 2), np.uint8), [1, 2, 3], batch_size=np.int64(2))
    assert data.columns[0].dtype == torch.uint8 and data.columns[1].dtype == torch.int64
    assert data.batch_size == 2 and len(data) == 3
    assert repr(data) == "Columns(3 examples of uint8 (2,), int64 () on cpu)"


def test_on_the_device(device):
    data = numbered(20, batch_size=8, shuffle=True).to(device)
    assert data.device.type == device.type
    here = rows_of(numbered(20, batch_size=8, shuffle=True), epoch=1)
    assert rows_of(data, epoch=1) == here
    assert all(c.device.type == device.type for b in data.batches() for c in b)


# Views


def test_like_keeps_the_settings_and_leaves_the_original():
    data = numbered(20, batch_size=3, shuffle=True, seed=4)
    data.derived = {0: "mark"}
    other = data.like(torch.zeros(5), batch_size=2)
    assert (len(other), other.batch_size, other.shuffle, other.seed) == (5, 2, True, 4)
    other.derived[1] = "other"
    assert data.derived == {0: "mark"} and len(data) == 20 and data.batch_size == 3


def test_take_in_order_and_to():
    data = numbered(20, batch_size=3, shuffle=True)
    assert data.take(torch.tensor([3, 1])).columns[1].tolist() == [30, 10]
    assert data.take(slice(18, None)).columns[0].tolist() == [18, 19]
    assert data.take(data.columns[0] < 2).columns[0].tolist() == [0, 1]
    assert rows_of(data.in_order())[0] == [0, 1, 2] and data.shuffle
    assert data.to("cpu").shuffle


# The guard


def test_every_view_of_a_held_out_set_shares_the_count(capsys):
    held = HeldOut(torch.arange(10), batch_size=4)
    views = [held, held.take(slice(5)), held.in_order(), held.like(batch_size=2), held.to("cpu")]
    views += [held.like(torch.zeros(3))]
    for i, view in enumerate(views):
        list(view.batches())
        assert [v.reads for v in views] == [i + 1] * len(views)
    assert isinstance(views[1], HeldOut) and HeldOut(torch.arange(3)).reads == 0
    held.announce(0.98765)
    assert capsys.readouterr().out == "held-out score 0.988 (this test set was read 6 times)\n"


def test_a_read_counts_when_it_begins_and_only_once():
    held = HeldOut(torch.arange(10), batch_size=4)
    reading = held.batches()
    assert held.reads == 0
    next(reading)
    next(reading)
    assert held.reads == 1


def test_one_read_is_one_time_and_quiet_is_quiet(capsys):
    held = HeldOut(torch.arange(3))
    list(held.batches())
    held.announce(0.5)
    held.like(quiet=True).announce(0.5)
    assert capsys.readouterr().out == "held-out score 0.500 (this test set was read 1 time)\n"


# Copies


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("other", [torch.uint8, torch.float32, torch.float64])
def test_overlap_compares_values_and_not_types(dtype, other):
    x = torch.arange(12).reshape(4, 3)
    found = overlap(Columns(x.to(dtype)), Columns(x[[2, 0]].to(other)))
    assert found.tolist() == [0, 2] and found.dtype == torch.int64


def test_overlap_of_nothing_and_of_zeros():
    x = torch.arange(6.0).reshape(2, 3)
    assert overlap(Columns(x), Columns(x + 10)).shape == (0,)
    assert overlap(Columns(torch.tensor([[-0.0]])), Columns(torch.tensor([[0.0]]))).tolist() == [0]


def test_overlap_is_not_a_read():
    held = HeldOut(torch.arange(3))
    overlap(held, Columns(torch.arange(3)))
    assert held.reads == 0


# Refusals

DATA = numbered(6)
REFUSALS = [
    (ValueError, "There are no examples", lambda: Columns()),
    (ValueError, "There are no examples", lambda: Columns(torch.zeros(0, 3))),
    (ValueError, "There are no examples", lambda: Columns(torch.tensor(3))),
    (
        ValueError,
        r"Column 2 has shape \(5,\) but column 0 has 6",
        lambda: Columns(*DATA.columns, torch.zeros(5)),
    ),
    (ValueError, r"Column 1 has shape \(\) but", lambda: Columns(torch.zeros(6), torch.tensor(1))),
    (
        ValueError,
        "Column 1 is on meta but column 0 is on cpu",
        lambda: Columns(torch.zeros(6), torch.zeros(6, device="meta")),
    ),
    (TypeError, "Column 1 is a list that does not become", lambda: Columns(torch.zeros(1), ["a"])),
    (TypeError, "Column 0 is a NoneType that does not", lambda: Columns(None)),
    (ValueError, "batch_size is 0", lambda: numbered(3, batch_size=0)),
    (ValueError, "batch_size is -1", lambda: DATA.like(batch_size=-1)),
    (ValueError, "batch_size is 2.5", lambda: numbered(3, batch_size=2.5)),
    (ValueError, "batch_size is True", lambda: numbered(3, batch_size=True)),
    (TypeError, "no setting 'shufle'", lambda: DATA.like(shufle=True)),
    (TypeError, "no setting 'columns'", lambda: DATA.like(columns=3)),
    (ValueError, "start is -1", lambda: next(DATA.batches(start=-1))),
]


@pytest.mark.parametrize("kind, words, use", REFUSALS)
def test_refusals(kind, words, use):
    with pytest.raises(kind, match=words) as error:
        use()
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
