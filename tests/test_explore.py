"""explore: what is stored is small, needs nothing else and can be read by everyone."""

import base64
import io
import re
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ftlearn import explore


def wave(k):
    figure, axes = explore.panels(size=(6, 3))
    t = np.linspace(0, 6, 200)
    for j in range(3):
        axes.plot(t, np.sin(k * t + j), label=f"line {j}")
    return figure


class Tags(HTMLParser):
    """Collects (tag, attributes) of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def pictures(page):
    """PNG data of the frames: the one that shows, and those that wait."""
    tags = Tags(page)
    (shown,), (figure,) = tags.all("img"), tags.all("figure")
    head, _, first = shown["src"].partition(",")
    assert head == "data:image/png;base64"
    return [base64.b64decode(data) for data in [first, *figure["data-frames"].split()]]


@pytest.fixture(scope="module")
def page():
    made = explore.slider(wave, range(1, 13), "speed <k> & more", "Waves of speed {}.")
    return explore.stored_form(made)


def test_twelve_frames_stay_under_the_budget(page):
    assert 10_000 < len(page.encode()) < 300_000
    assert len(pictures(page)) == 12


def test_the_page_needs_nothing_else(page):
    tags = Tags(page)
    assert not tags.all("script") and not tags.all("link") and "http" not in page
    assert not any("id" in attrs for _, attrs in tags.found)


def test_every_frame_is_a_picture(page):
    from PIL import Image

    for data in pictures(page):
        assert Image.open(io.BytesIO(data)).size[0] >= 600


def test_the_slider_speaks(page):
    tags = Tags(page)
    (control,) = tags.all("input")
    assert (
        control["type"] == "range" and control["max"] == "11" and control["aria-valuetext"] == "1"
    )
    assert "speed &lt;k&gt; &amp; more" in page and "speed <k>" not in page
    assert tags.all("img")[0]["alt"] == "Waves of speed 1."
    assert '[11, "12", "Waves of speed 12."]' in control["oninput"]


def test_a_page_without_styles_and_scripts_shows_the_first_frame_alone(page):
    """What remains where a site removes both: one picture, its control and its value."""
    tags = [tag for tag, _ in Tags(page).found]
    assert tags == ["figure", "img", "div", "span", "input", "output"]


def test_equal_frames_are_stored_once():
    made = explore.slider(lambda v: wave(1 + v % 2), range(6), "parity")
    page = explore.stored_form(made)
    assert len(pictures(page)) == 2
    assert '[1, "5", "parity: 5"]' in Tags(page).all("input")[0]["oninput"]


def test_too_large_a_slider_is_refused():
    made = explore.slider(wave, [1, 2], "big")
    with pytest.raises(ValueError, match="'big' takes .* kB: use fewer values"):
        explore.stored_form(made, limit=1000)


@pytest.mark.parametrize("values, names", [([], None), ([1, 1], None), ([1, 2], ["a", "a"])])
def test_values_without_names_of_their_own_are_refused(values, names):
    with pytest.raises(ValueError, match="a different name for each"):
        explore.slider(wave, values, "k", names=names)


def test_drawing_waits_until_the_slider_is_shown():
    drawn = []
    made = explore.slider(lambda v: drawn.append(v) or wave(v), [1, 2], "k")
    assert drawn == []
    forms = made._repr_mimebundle_()
    assert set(forms) == {"text/html", "text/plain"}, "no kernel runs here, so no live form"
    assert set(drawn) == {1, 2}


def test_the_live_form_calls_the_same_draw():
    drawn = []
    made = explore.slider(lambda v: drawn.append(v) or wave(v), [1, 2, 3], "k")
    picture, control = explore.live_widget(made).children
    control.index = 2
    assert drawn == [1, 3] and 'alt="k: 3"' in picture.value


def test_an_error_while_moving_is_shown_where_the_picture_was():
    made = explore.slider(lambda v: wave(1 / v), [1, 0], "k<")
    picture, control = explore.live_widget(made).children
    control.index = 1
    assert "ZeroDivisionError: division by zero" in picture.value and "<img" not in picture.value
    control.index = 0
    assert 'alt="k&lt;: 1"' in picture.value


def test_spread_keeps_order_gap_and_limits():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 12):
        for _ in range(50):
            wanted = rng.uniform(-1, 11, n).round(1).tolist()
            placed = np.array(explore.spread(wanted, 0.8, 0, 10))
            order = np.argsort(wanted, kind="stable")
            assert (np.diff(placed[order]) > 0.8 - 1e-9).all()
            assert placed.min() > 0.4 - 1e-9 and placed.max() < 9.6 + 1e-9


def test_spread_moves_nothing_without_need():
    assert explore.spread([4.0, 1.0, 8.0], 1.0, 0, 10) == [4.0, 1.0, 8.0]


def test_label_lines_puts_labels_apart():
    figure = wave(0)
    figure.axes[0].set_ylim(-40, 40)  # the three lines lie almost on each other
    explore.label_lines(figure.axes[0])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["line 0", "line 1", "line 2"]
    assert explore.overlapping_labels(figure) == []


def test_overlapping_labels_sees_what_overlaps():
    figure, axes = explore.panels()
    axes.text(0.5, 0.5, "one")
    axes.text(0.5, 0.5, "two")
    assert explore.overlapping_labels(figure) == [("two", "one")]


def test_house_style_is_set_and_panels_leaves_settings_alone():
    before = dict(matplotlib.rcParams)
    figure, axes = explore.panels(2, 3, sharey=True)
    assert axes.shape == (2, 3) and isinstance(figure, Figure)
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context():
        explore.house_style()
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(explore.COLOURS)


def luminance(colour):
    """Relative luminance of WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_text_stands_out_on_the_card():
    """Contrast of 4.5 for text (WCAG 2, level AA); the card is opaque on any page."""
    figure, axes = explore.panels()
    card = figure.get_facecolor()
    assert card[3] == 1
    for colour in (axes.xaxis.label.get_color(), axes.title.get_color()):
        assert (luminance(card[:3]) + 0.05) / (luminance(colour) + 0.05) > 4.5


def test_palette_stays_apart_without_red_or_green():
    """Machado, Oliveira and Fernandes (2009), full protanopia and deuteranopia."""
    views = [
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    ]
    colours = np.array([matplotlib.colors.to_rgb(c) for c in explore.COLOURS])
    for view in views:
        seen = colours @ np.array(view).T
        gaps = np.linalg.norm(seen[:, None] - seen, axis=-1) + 9 * np.eye(len(seen))
        assert gaps.min() > 0.1


def test_pictures_have_a_text_and_a_palette():
    picture = explore.Picture(wave(1), "A wave.")
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A wave."
    assert len(data["image/png"]) < 60_000
    with pytest.raises(ValueError, match="needs a text"):
        explore.Picture(wave(1), " ")


@pytest.mark.parametrize("shape", [(7, 8, 8), (7, 1, 8, 8)])
def test_images_takes_arrays_and_tensors(shape):
    for x in (np.zeros(shape), torch.zeros(shape)):
        figure = explore.images(x, titles=range(7), marked=[2], columns=4)
        assert [a.get_title() for a in figure.axes] == ["0", "1", "× 2", "3", "4", "5", "6", ""]
        assert explore.overlapping_labels(figure) == []


@pytest.mark.parametrize("ok", [True, np.bool_(True), torch.tensor(True), 1])
def test_claim_prints_one_line(ok, capsys):
    explore.claim("so it is", ok)
    assert capsys.readouterr().out == "✓ so it is\n"


@pytest.mark.parametrize("ok", [False, 0, None, np.bool_(False), torch.tensor(False)])
def test_claim_stops(ok):
    with pytest.raises(AssertionError, match="not so: it is"):
        explore.claim("it is", ok)


@pytest.mark.parametrize("ok", ["yes", (False,), [0], lambda: False])
def test_claim_refuses_what_is_always_true(ok):
    with pytest.raises(TypeError, match="a claim needs a truth value"):
        explore.claim("it is", ok)


def test_table_as_text_and_html():
    made = explore.table([{"who": "<a>", "score": 0.25}, {"who": "b"}])
    assert repr(made) == "who  score\n<a>  0.250\nb"
    assert re.findall("<td>(.*?)</td>", made._repr_html_()) == ["&lt;a&gt;", "0.250", "b", ""]
    assert repr(explore.table([[1, 2]], header=["x", "long"])) == "x  long\n1     2"


@pytest.mark.parametrize("rows, header", [([], None), ([[1]], None), ([[1, 2]], ["one"])])
def test_bad_tables_are_refused(rows, header):
    with pytest.raises(ValueError, match="header|entries"):
        explore.table(rows, header)


def test_images_shows_colours_where_there_are_three_channels():
    x = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    x[0, 0] = 255
    figure = explore.images(x, titles=["red", "black"])
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (4, 5, 3) and (shown[..., 0] == 255).all() and (shown[..., 1:] == 0).all()
    assert explore.overlapping_labels(figure) == []


@pytest.fixture
def no_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass: nothing else makes them pass."""
    now = [0.0]
    monkeypatch.setattr(explore.time, "perf_counter", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds_and_the_last_word(no_terminal, clock, capsys):
    for _ in explore.progress(iter(range(9)), 9, "fits", seconds=4):
        clock[0] += 3
    said = [f"fits: {n} of 9, {3 * n} s\n" for n in (2, 6, 9)]
    assert capsys.readouterr().out == "".join(said)


def test_short_work_says_nothing(no_terminal, capsys):
    assert list(explore.progress(range(3), 3, "fits")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_one_line_that_is_rewritten(no_terminal, clock, monkeypatch, capsys):
    """Silence for ten seconds, then each second, and the last word stays."""
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    for _ in explore.progress(range(28), 28, "fits"):
        clock[0] += 0.5
    said = [f"\rfits: {n} of 28, {n / 2:.0f} s" for n in (20, 22, 24, 26, 28)]
    assert capsys.readouterr().out == "".join(said) + "\n"


def test_bytes_are_counted_from_where_the_work_went_on(no_terminal, capsys):
    pieces = [b"x" * 1000] * 3
    assert list(explore.progress(pieces, 5000, "net", 0, size=len, start=2000)) == pieces
    assert capsys.readouterr().out.splitlines() == [
        "net: 3.00kB of 5.00kB, 0 s",
        "net: 5.00kB of 5.00kB, 0 s",
    ]


def test_a_total_that_nobody_knows_is_left_out(no_terminal, capsys):
    list(explore.progress([b"xy"], None, "net", 0, size=len))
    assert capsys.readouterr().out == "net: 2.00B, 0 s\n"


def test_the_line_is_closed_when_the_loop_is_left(no_terminal, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    for item in explore.progress(range(9), 9, "fits", seconds=-1):
        if item == 2:
            break
    assert capsys.readouterr().out.endswith("\rfits: 1 of 9, 0 s\n")
