"""The built site in a real Chromium, as readers meet it: wide and narrow, light and dark."""

import functools
import http.server
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

browser = pytest.importorskip("browser", reason="run it with `make test-web`")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SITE = ROOT / "docs" / "_build" / "html"
PAGES = sorted(
    p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts
)
LESSONS = [p for p in PAGES if re.match(r"lessons/(\d\d_|index)", p)]
SIZES, SCHEMES = {"wide": 1280, "narrow": 390}, ("light", "dark")
LIMIT = 3_000_000  # bytes of one page with all that it loads
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}}
CODE = "div.highlight"  # thousands of spans in eight colours: looked at on two pages


def test_the_site_is_built():
    assert PAGES, "docs/_build/html is empty: run `make docs`"


def test_a_browser_that_is_named_and_absent_is_an_error(monkeypatch):
    monkeypatch.setenv("FTLEARN_BROWSER", "no-such-browser")
    with pytest.raises(ValueError, match="FTLEARN_BROWSER is 'no-such-browser'"):
        browser.find()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site without a word."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    """Address of the site, served from this machine."""
    handler = functools.partial(Quiet, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of a worker."""
    path = browser.find() or pytest.skip(browser.MISSING)
    with playwright.sync_playwright() as started:
        program = started.chromium.launch(executable_path=path, args=browser.FLAGS)
        yield program
        program.close()


@pytest.fixture(scope="session", params=[(s, c) for s in SIZES for c in SCHEMES], ids="-".join)
def window(request, chromium):
    """A window of one width in one scheme."""
    size, scheme = request.param
    view = {"width": SIZES[size], "height": 900}
    context = chromium.new_context(viewport=view, color_scheme=scheme, has_touch=size == "narrow")
    yield context
    context.close()


class Visit:
    """A page that has been opened, and what went wrong on the way."""

    def __init__(self, context, site, name):
        self.site, self.problems, self.responses = site, [], []
        self.page = context.new_page()
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self.asked)
        self.page.on("response", self.answered)
        self.page.goto(site + name)
        self.page.wait_for_load_state("networkidle")

    def heard(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def asked(self, request):
        if not request.url.startswith((self.site, "data:", "blob:")):
            self.problems.append(f"leaves the site: {request.url[:100]}")

    def answered(self, response):
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")
        elif not response.url.startswith(("data:", "blob:")):
            self.responses.append(response)

    def sizes(self):
        """(bytes, address) of all that was loaded, the largest first."""
        return sorted(((len(r.body()), r.url) for r in self.responses), reverse=True)


@pytest.fixture
def visit(site):
    """Opens pages, and closes them at the end of the test."""
    opened = []

    def visit(context, name):
        opened.append(Visit(context, site, name))
        return opened[-1]

    yield visit
    for one in opened:
        one.page.close()


def load_lazy_images(page):
    """Have every image, as after scrolling to the end."""
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every((image) => image.complete)")


def violations(page, **context):
    """What breaks axe's rules of WCAG 2, levels A and AA, contrast among them."""
    context = context or {"exclude": [[CODE]]}
    found = Axe().run(page, context=context, options=RULES).response["violations"]
    return [
        f"{one['id']}: {node['html'][:90]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(visit, window, name):
    one = visit(window, name)
    load_lazy_images(one.page)
    seen = one.page.evaluate((HERE / "look.js").read_text(encoding="utf-8"))
    assert not one.problems
    assert not seen["tooWide"], "wider than the window"
    assert not seen["cut"], "text that leaves the window or its box"
    assert not seen["overlaps"], "text on text"
    assert not seen["silent"], "images without a text"
    assert not seen["broken"], "images that did not load"
    assert not seen["unread"], "formulas that are empty, or show their source"
    sizes = one.sizes()
    assert sum(size for size, _ in sizes) < LIMIT, sizes[:3]
    assert not violations(one.page)[:5]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("name", "blocks"), [("lessons/03_losses.html", 30), ("use.html", 3)])
def test_code_can_be_read_in_both_schemes(chromium, visit, scheme, name, blocks):
    context = chromium.new_context(color_scheme=scheme)
    page = visit(context, name).page
    assert page.locator(CODE).count() > blocks
    assert not violations(page, include=[[CODE]])[:5]
    context.close()


class Links(HTMLParser):
    """Targets of a page's links, and the anchors that it has."""

    def __init__(self, page):
        super().__init__()
        self.links, self.anchors = set(), {"", "top"}
        self.feed((SITE / page).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        self.links |= {attrs[k] for k in ("href", "src") if attrs.get(k)}


@functools.cache
def links(page):
    return Links(page)


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_resolve(name):
    dead = []
    for link in links(name).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link.startswith("data:"):
            continue
        target = (SITE / name).parent / unquote(parts.path) if parts.path else SITE / name
        target = (target / "index.html" if target.is_dir() else target).resolve()
        if not target.is_file():
            dead.append(link)
        elif target.suffix == ".html" and "_static" not in target.parts:
            page = target.relative_to(SITE.resolve()).as_posix()
            if unquote(parts.fragment) not in links(page).anchors:
                dead.append(link)
    assert not dead


@pytest.fixture
def wide(chromium):
    """A light window of a desk."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def phone(chromium):
    """A narrow window that is touched."""
    context = chromium.new_context(viewport={"width": 390, "height": 900}, has_touch=True)
    yield context
    context.close()


def state(figure):
    """(picture as a number, its text, the value's name) of an explorable."""
    image = figure.locator("img")
    return (
        hash(image.get_attribute("src")),
        image.get_attribute("alt"),
        figure.locator("output").inner_text(),
    )


def frames(figure):
    """The pictures of an explorable as numbers, in the order in which its steps bring them."""
    others = figure.get_attribute("data-frames").split()
    return [state(figure)[0], *(hash(f"data:image/png;base64,{other}") for other in others)]


def explorables(page):
    """The figures of a page that have something to move."""
    found = page.locator("figure:has(input[type=range])")
    assert found.count(), "nothing to move"
    return [found.nth(i) for i in range(found.count())]


@pytest.mark.parametrize("name", LESSONS)
def test_a_slider_is_moved_by_keyboard(visit, wide, name):
    for figure in explorables(visit(wide, name).page):
        control, pictures = figure.locator("input"), frames(figure)
        seen = [state(figure)]
        control.focus()
        for _ in range(int(control.get_attribute("max"))):
            control.press("ArrowRight")
            seen.append(state(figure))
            assert control.get_attribute("aria-valuetext") == seen[-1][2]
        shown, texts, names = zip(*seen, strict=True)
        assert len(set(names)) == len(set(texts)) == len(seen), "each step has a name and a text"
        assert list(dict.fromkeys(shown)) == pictures, "every picture is seen, in its order"
        assert len(pictures) > 1, "the figure changes"
        control.press("Home")
        assert state(figure) == seen[0], "and the first one comes back"


@pytest.mark.parametrize("name", LESSONS)
def test_a_slider_is_moved_by_mouse_and_by_touch(visit, wide, phone, name):
    for context, hit in ((wide, "click"), (phone, "tap")):
        for figure in explorables(visit(context, name).page):
            control, before = figure.locator("input"), state(figure)
            control.scroll_into_view_if_needed()
            box = control.bounding_box()
            getattr(control, hit)(position={"x": box["width"] - 4, "y": box["height"] / 2})
            assert control.input_value() == control.get_attribute("max"), hit
            after = state(figure)
            assert all(a != b for a, b in zip(after, before, strict=True)), hit


@pytest.mark.parametrize("name", LESSONS[:3])
def test_paper_shows_the_figure_and_not_its_slider(visit, wide, name):
    page = visit(wide, name).page
    page.emulate_media(media="print")
    for figure in explorables(page):
        assert figure.locator("img").is_visible() and not figure.locator("input").is_visible()


QUESTIONS = {
    "batchnorm frozen": "lessons/05_freezing.html",
    "teacher temperature": "lessons/11_distill.html",
    "learning rate finder": "lessons/07_rates.html",
    "loss nan": "symptoms.html",
    "param_groups": "reference/rates.html",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_search_answers(visit, wide, question):
    page = visit(wide, "index.html").page
    page.keyboard.press("Control+k")
    page.keyboard.type(question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results .search-summary:has-text('found')", timeout=20_000)
    found = page.locator("#search-results li a").evaluate_all("all => all.map((a) => a.href)")
    places = [urlsplit(link).path.lstrip("/") for link in found]
    assert QUESTIONS[question] in places[:8], places[:8]


def test_the_copy_button_copies(chromium, visit):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = visit(context, "use.html").page
    block = page.locator("div.highlight:has(button.copybtn)").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == block.locator("pre").inner_text().strip() != ""
    context.close()


def test_the_course_is_read_from_page_to_page(visit, wide):
    page, seen = visit(wide, "lessons/index.html").page, ["lessons/index.html"]
    while len(seen) < len(LESSONS):
        page.locator("a.right-next").click()
        page.wait_for_load_state()
        seen.append(urlsplit(page.url).path.lstrip("/"))
    assert sorted(seen) == sorted(LESSONS)
    assert seen[1:] == sorted(seen[1:])


def test_figures_lie_on_one_white_card(chromium, visit):
    """The theme would dim them in the dark and put a pale card behind each."""
    context = chromium.new_context(color_scheme="dark")
    page = visit(context, "lessons/05_freezing.html").page
    look = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.padding, s.filter] }"
    images = page.locator(".figure img, figure img")
    assert images.count() > 3
    for i in range(images.count()):
        assert images.nth(i).evaluate(look) == ["rgb(255, 255, 255)", "0px", "none"]
    assert page.locator(".text_html").first.evaluate(look)[0] == "rgba(0, 0, 0, 0)"
    context.close()


def test_paper_is_white_and_solutions_are_open(chromium, visit):
    context = chromium.new_context(color_scheme="dark")
    page = visit(context, "lessons/05_freezing.html").page
    theme = "document.documentElement.dataset.theme"
    folds, closed = [page.locator(f"article details{kind}") for kind in ("", ":not([open])")]
    folds.first.evaluate("fold => (fold.open = true)")  # by the reader: it stays
    before = closed.count()
    assert before > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(theme) == "light" and closed.count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(theme) == "dark" and closed.count() == before
    assert folds.first.evaluate("fold => fold.open")
    context.close()


def test_formulas_are_markup_that_is_read_aloud(visit, wide):
    """At least one lesson has one, and no page shows its source."""
    pages = [p for p in LESSONS if "<math" in (SITE / p).read_text(encoding="utf-8")]
    assert pages
    for name in pages:
        body = visit(wide, name).page.locator("article").inner_text()
        assert not re.search(r"\\(frac|sum|sqrt|mathrm|log)\b", body)
