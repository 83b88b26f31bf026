"""The embedded world: digits in contiguous blocks, and letters made as the digits were made."""

import unicodedata

import numpy as np
import pytest
import torch

from ftlearn.data import HeldOut, generator, overlap
from ftlearn.glyphs import (
    FACES,
    SCRIPTS,
    blur,
    counts,
    digits,
    fit_to_frame,
    glyphs,
    is_letter,
    masters,
    pick,
    render,
    threshold,
    warp,
)


def test_digits_are_contiguous_disjoint_blocks_of_the_original():
    from sklearn.datasets import load_digits

    parts, truth = digits(), load_digits()
    x = torch.cat([part.columns[0] for part in parts])
    y = torch.cat([part.columns[1] for part in parts])
    assert [len(part) for part in parts] == [900, 300, 597]
    assert np.array_equal(x[:, 0].numpy(), truth.images) and y.tolist() == truth.target.tolist()
    assert x.dtype == torch.uint8 and y.dtype == torch.int64
    assert not len(overlap(parts.pool, parts.test)) and not len(overlap(parts.pool, parts.valid))


def test_the_test_set_counts_its_reads():
    test = digits(batch_size=100).test
    assert isinstance(test, HeldOut) and test.reads == 0
    assert len(list(test.batches())) == 6 and test.reads == 1


@pytest.mark.parametrize("character", "0 7 ² ½ ٣ Ⅷ ① ৪ ፩ 五 ƻ Ƨ Ƽ ƽ Ƅ ꜫ ꜭ é ﬁ ! あ".split())
def test_numerals_and_their_children_are_no_letters(character):
    assert not is_letter(character)


@pytest.mark.parametrize("character", "O l I Q ß Ω ж ш ა ש ա З".split())
def test_letters_are_letters_even_if_they_look_like_digits(character):
    assert is_letter(character)


@pytest.mark.parametrize("character", "Ϛ ϛ Ϟ ϟ Ϡ ϡ Ҁ ҁ".split())
def test_letters_that_survive_as_numbers_are_letters_as_lesson_01_says(character):
    assert is_letter(character) and unicodedata.numeric(character, None) is None
    assert any(character in name for name in masters().names)


def test_no_class_holds_a_numeral():
    for name in masters().names:
        for character in name:
            assert unicodedata.category(character)[0] == "L"
            assert unicodedata.numeric(character, None) is None
            assert unicodedata.normalize("NFKC", character) == character
            assert unicodedata.name(character).split()[0] in SCRIPTS


def test_every_letter_is_in_one_class_and_every_class_has_pictures():
    pictures, labels, names = masters()
    letters = "".join(names)
    assert len(set(letters)) == len(letters)
    assert len(pictures) == len(labels) and pictures.dtype == torch.uint8
    assert labels.bincount(minlength=len(names)).min() >= 1 and labels.max() == len(names) - 1
    assert len(names) > 500 and len(FACES) == 22


def test_lookalikes_of_other_scripts_share_a_class():
    names = masters().names
    for latin, greek, cyrillic in ("AΑА", "OΟО", "HΗН"):
        home = next(name for name in names if latin in name)
        assert greek in home and cyrillic in home


def test_masters_have_ink_and_a_margin():
    pictures = masters().pictures
    assert (pictures.amax((1, 2, 3)) > 127).all()
    border = torch.ones(48, 48, dtype=torch.bool)
    border[5:-5, 5:-5] = False
    assert not pictures[:, 0, border].any()


def test_glyphs_are_a_pure_function_of_their_arguments():
    state = torch.get_rng_state()
    x, y = glyphs(300, seed=3).columns
    again, other = glyphs(300, seed=3).columns, glyphs(300, seed=4).columns
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert not torch.equal(x, other[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_glyphs_have_the_form_of_the_digits():
    x, y = glyphs(2000).columns
    real = digits().pool.columns[0]
    assert x.shape == (2000, 1, 8, 8) and x.dtype == real.dtype and y.dtype == torch.int64
    assert int(x.max()) == int(real.max()) == 16 and x.min() == 0
    ink, real_ink = x.float().mean() / 16, real.float().mean() / 16
    assert abs(ink - real_ink) < 0.04


def test_glyphs_fill_the_frame_from_top_to_bottom():
    x = glyphs(2000).columns[0]
    rows = (x.amax(3) > 0).float().mean((0, 1))
    assert rows.min() > 0.97
    wide = (x.amax(2) > 3).squeeze(1).float().sum(1)
    assert wide.max() <= 8 and wide.float().mean() > 4


def test_counts_are_the_black_pixels_of_each_block():
    bitmap = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    bitmap[0, 0, :4, :4] = True
    bitmap[0, 0, 4, 31] = True
    found = counts(bitmap)
    assert found[0, 0, 0, 0] == 16 and found[0, 0, 1, 7] == 1 and found.sum() == 17


def test_threshold_leaves_the_share_of_ink():
    x = torch.rand(5, 1, 32, 32, generator=generator(0))
    share = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    found = (x > threshold(x, share)).float().mean((1, 2, 3))
    assert torch.allclose(found, share, atol=2e-3)


@pytest.mark.parametrize("box", [(3, 10, 20, 41), (0, 48, 0, 48), (20, 25, 30, 33), (40, 48, 0, 5)])
def test_fit_to_frame_cuts_to_the_ink(box):
    top, bottom, left, right = box
    x = torch.zeros(1, 1, 48, 48)
    x[0, 0, top:bottom, left:right] = 1
    found = fit_to_frame(x, x > 0, torch.tensor([0.5]))[0, 0] > 0.5
    assert found[:, 16].all() and found[:, 10:22].all()
    assert not found[:, :6].any() or left == 0
    assert found.any(1).all()


def test_blur_keeps_the_ink_and_spreads_it():
    x = torch.zeros(2, 1, 33, 33)
    x[:, 0, 16, 16] = 1
    found = blur(x, torch.tensor([0.5, 2.0]))
    assert torch.allclose(found.sum((1, 2, 3)), torch.ones(2), atol=1e-5)
    assert found[0].max() > found[1].max()


def test_warp_without_range_only_shrinks():
    x = masters().pictures[:4].float()
    a, b = [warp(x, generator(s), turn=0, slant=0, stretch=0, bend=0) for s in (0, 1)]
    assert torch.equal(a, b)


def test_render_of_a_row_depends_on_the_generator_only():
    x = masters().pictures[:16]
    assert torch.equal(render(x, generator(1)), render(x, generator(1)))
    assert not torch.equal(render(x, generator(1)), render(x, generator(2)))


def test_pick_takes_every_class_alike_however_rare():
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    rows = pick(labels, 30_000, generator(0))
    share = labels[rows].bincount().float() / 30_000
    assert (share - 1 / 3).abs().max() < 0.02
