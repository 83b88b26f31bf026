"""Drive a real JupyterLab as a reader does: through its menus, its cells and the keyboard."""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import quote, urlsplit

import browser
from playwright.sync_api import TimeoutError as TooLate
from playwright.sync_api import expect, sync_playwright

# Every output is in the page, nothing is fetched, and settings that a reader has change nothing.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
LAB = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)
SIZE = {"width": 1400, "height": 900}
FOLDERS = ("CONFIG", "DATA", "RUNTIME")


def free_port():
    """A port of the loopback that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(home):
    """One thread for each kernel, and every file of Jupyter's own below `home`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST"))}
    env |= {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in FOLDERS}
    env |= {f"JUPYTERLAB_{n}_DIR": str(home / n.lower()) for n in ("SETTINGS", "WORKSPACES")}
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return env | one | {"IPYTHONDIR": str(home / "ipython"), "PYTHONDONTWRITEBYTECODE": "1"}


def write_settings(home):
    """JupyterLab's settings, one file for each extension."""
    for name, values in SETTINGS.items():
        path = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def wait_for(url, process, log, seconds=60):
    """Return when the server answers; an AssertionError shows its log if it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def server(home, root):
    """A JupyterLab over the folder `root`; yields its address and its token."""
    port, token, log = free_port(), secrets.token_hex(8), home / "server.log"
    write_settings(home)
    own = [f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"]
    command = [sys.executable, "-m", "jupyterlab", *LAB, *own]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment(home), stdout=out, stderr=out)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={token}", process, log)
        yield f"http://127.0.0.1:{port}", token
    finally:
        process.terminate()  # it ends its kernels
        process.wait(30)


# What a reader sees of each cell with code: its prompt, its outputs as text, what of it is red, as
# errors and warnings are, and whether a picture is wider than its place.
CELLS = """() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].map(cell => ({
  prompt: cell.querySelector('.jp-InputPrompt').textContent,
  text: [...cell.querySelectorAll('.jp-OutputArea-output')].map(o => o.innerText).join('\\n'),
  red: cell.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]')?.innerText ?? '',
  wide: [...cell.querySelectorAll('.jp-OutputArea-output img')].some(picture =>
    picture.width > picture.closest('.jp-OutputArea-output').clientWidth),
}))"""
# The kernel is idle, no cell waits for it, and from cell number `first` on one at least has run.
SETTLED = """first => {
  const found = document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt');
  const prompts = [...found].map(prompt => prompt.textContent);
  const kernel = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status;
  const ran = prompts.slice(first).some(prompt => /^\\[\\d+\\]:$/.test(prompt));
  return kernel === 'idle' && ran && !prompts.includes('[*]:');
}"""
# Every text that the last cell shows from now on, as long as it is another than the one before.
WATCH = f"""() => {{
  const seen = window.seen = [], look = () => {{
    const text = ({CELLS})().at(-1).text;
    if (text !== seen.at(-1)) seen.push(text);
  }};
  const what = {{childList: true, characterData: true, subtree: true}};
  new MutationObserver(look).observe(document.querySelector('.jp-Notebook'), what);
}}"""
# What is seen of the widget in a cell: its picture, the text that stands for it, its values.
WIDGET = """cell => ({
  src: cell.querySelector('.jp-OutputArea-output img')?.src ?? '',
  alt: cell.querySelector('.jp-OutputArea-output img')?.alt ?? '',
  values: [...cell.querySelectorAll('.widget-readout')].map(e => e.textContent).join(', '),
})"""


class Notebook:
    """One notebook, open in a page of JupyterLab."""

    def __init__(self, page, path):
        self.page, self.path = page, path

    def cells(self):
        """What is seen of every cell with code: prompt, text, red, wide."""
        return self.page.evaluate(CELLS)

    def menu(self, *names):
        """Choose from the menu bar, as in `menu("Kernel", "Interrupt Kernel")`."""
        labels = self.page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel")
        for name in names:
            labels.filter(has_text=re.compile(f"^{name}$")).click()

    def settle(self, seconds, first=0):
        """Wait for the kernel, and for the cells from number `first` on."""
        try:
            self.page.wait_for_function(SETTLED, arg=first, timeout=1000 * seconds, polling=100)
        except TooLate:
            late = [(i, c) for i, c in enumerate(self.cells(), 1) if c["prompt"] == "[*]:"][:1]
            raise AssertionError(f"after {seconds} s this code cell still runs: {late}") from None

    def run_all(self, seconds):
        """Restart the kernel and run all cells of a notebook that has not run yet."""
        self.menu("Kernel", "Restart Kernel and Run All Cells…")
        self.page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        self.settle(seconds)

    def write(self, code):
        """Put a new cell below the last one with code, and leave the cursor in it."""
        cells = self.page.locator(".jp-CodeCell")
        number = cells.count()
        cells.last.locator(".jp-InputPrompt").click()
        self.page.keyboard.press("b")
        expect(cells).to_have_count(number + 1)
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(code)

    def run(self, code, seconds=60):
        """Run code in a new cell; returns the cell as a reader sees it."""
        self.start(code)
        self.settle(seconds, first=len(self.cells()) - 1)
        return self.cells()[-1]

    def start(self, code):
        """Run code in a new cell, and do not wait for it."""
        self.write(code)
        self.page.keyboard.press("Control+Enter")

    def save(self):
        """Save with the keyboard; returns the notebook as it is in the file then."""
        self.page.keyboard.press("Control+s")
        self.page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty").wait_for(state="detached")
        return json.loads(self.path.read_text(encoding="utf-8"))

    def widgets(self):
        """Cells with a live slider."""
        slider = self.page.locator(".noUi-handle")
        return self.page.locator(".jp-CodeCell").filter(has=slider).all()

    def picture(self, name):
        """Keep a picture of the page where FTLEARN_SCREENSHOTS names a folder."""
        if folder := os.environ.get("FTLEARN_SCREENSHOTS"):
            self.page.screenshot(path=os.path.join(folder, f"lab-{name}.png"))


def by_keyboard(handle):
    """One step with the arrow keys: up, or down from the upper end."""
    upright = handle.get_attribute("aria-orientation") == "vertical"
    now, high = (float(handle.get_attribute(f"aria-value{k}")) for k in ("now", "max"))
    keys = ("ArrowUp", "ArrowDown") if upright else ("ArrowRight", "ArrowLeft")
    handle.focus()
    handle.page.keyboard.press(keys[now == high])


def by_mouse(handle):
    """Drag the handle to that end of its track which is further away."""
    low, now, high = (float(handle.get_attribute(f"aria-value{k}")) for k in ("min", "now", "max"))
    upright = handle.get_attribute("aria-orientation") == "vertical"
    track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-base')]").bounding_box()
    x, y, wide, tall = (track[k] for k in ("x", "y", "width", "height"))
    up = now - low < high - now
    mouse = handle.page.mouse
    handle.hover()
    mouse.down()
    if upright:
        mouse.move(x + wide / 2, y if up else y + tall)
    else:
        mouse.move(x + wide if up else x, y + tall / 2)
    mouse.up()


# The named parts of the widget are others than before.
CHANGED = f"""([cell, before]) => {{
  const now = ({WIDGET})(cell);
  return Object.keys(before).every(part => now[part] !== before[part]);
}}"""


def check_change(cell, what, move, parts=("src", "alt", "values"), seconds=60):
    """Make a move and wait until these parts of the widget are others than before."""
    before = {part: cell.evaluate(WIDGET)[part] for part in parts}
    move()
    seen = [cell.element_handle(), before]
    try:
        cell.page.wait_for_function(CHANGED, arg=seen, timeout=1000 * seconds)
    except TooLate:
        now = cell.evaluate(WIDGET)
        same = {part: now[part][-60:] for part in parts if now[part] == before[part]}
        number = cell.locator(".jp-InputPrompt").inner_text()
        raise AssertionError(f"the widget of {number} {what} did not change {same}") from None


class Lab:
    """A running JupyterLab, and a browser in front of it."""

    def __init__(self, browser, address, token, home, root):
        self.browser, self.address, self.token = browser, address, token
        self.home, self.root = home, root

    def trust(self, path):
        """As `make lab` does with every lesson."""
        command = [sys.executable, "-m", "jupyter", "trust", str(path)]
        subprocess.run(command, env=environment(self.home), check=True, capture_output=True)

    @contextlib.contextmanager
    def opened(self, path):
        """A notebook below the root in a page of its own; no request may leave the machine."""
        page, asked, errors = self.browser.new_page(viewport=SIZE), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        place = quote(path.relative_to(self.root).as_posix())
        page.goto(f"{self.address}/lab/tree/{place}?token={self.token}&reset")
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
        notebook = Notebook(page, path)
        try:
            yield notebook
        finally:
            notebook.picture(path.stem)
            page.close()
            self.stop_kernels()
        away = {url[:100] for url in asked if not local(url)}
        assert not away, f"requests to other machines: {away}"
        assert not errors, f"errors in the page: {errors}"

    def stop_kernels(self):
        """End every kernel of this server."""
        for kernel in self.ask("api/kernels"):
            self.ask(f"api/kernels/{kernel['id']}", "DELETE")

    def ask(self, what, method="GET"):
        """An answer of the server's own interface."""
        key = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{what}", headers=key, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


def local(url):
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"


@contextlib.contextmanager
def laboratory(home, root):
    """A JupyterLab over `root` and a browser, as a `Lab`."""
    with server(home, root) as (address, token), sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser.find(), args=browser.FLAGS)
        yield Lab(chromium, address, token, home, root)
        chromium.close()
