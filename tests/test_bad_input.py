"""Bad input: one clear sentence each, a different one for each cause, and nothing is lost.

A row is (cause, exception, words of its sentence, what the user did). The files of a row live in
a folder of its own. The rows stand in the modules rows_*.py, one for each part of the package.
"""

import pytest
from rows_augment import ROWS as AUGMENT
from rows_backbones import ROWS as BACKBONES
from rows_core import ROWS as CORE
from rows_distill import ROWS as DISTILL
from rows_folder import ROWS as FOLDERS
from rows_recipes import ROWS as RECIPES
from rows_schedules import ROWS as SCHEDULES
from rows_speed import ROWS as SPEED
from rows_store import ROWS as STORES

ROWS = CORE + FOLDERS + BACKBONES + RECIPES + SCHEDULES + AUGMENT + DISTILL + STORES + SPEED


@pytest.mark.parametrize("cause, kind, words, act", ROWS, ids=[row[0] for row in ROWS])
def test_bad_input_gets_one_clear_sentence(cause, kind, words, act, tmp_path):
    with pytest.raises(kind, match=words) as caught:
        act(tmp_path)
    sentence = str(caught.value)
    assert sentence[0].isupper() or sentence[0] in "'/" or sentence.split()[0].islower()
    assert sentence.endswith(".") and len(sentence) < 400
    assert "Traceback" not in sentence and "\n" not in sentence


def test_the_table_is_long_and_every_cause_has_its_own_sentence(tmp_path):
    sentences = {}
    for i, (cause, kind, _, act) in enumerate(ROWS):
        folder = tmp_path / str(i)
        folder.mkdir()
        with pytest.raises(kind) as caught:
            act(folder)
        sentences[cause] = str(caught.value).replace(str(folder), "")
    sentences.pop("an empty column")  # the same cause as no columns
    assert len(sentences) >= 40
    assert len(set(sentences.values())) == len(sentences)
