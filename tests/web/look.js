// What a person would see at once on a page, measured: called by test_site.py in the browser.
() => {
  const shown = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (e) => `${e.tagName.toLowerCase()}.${e.className} "${(e.textContent || "").trim().slice(0, 40)}"`;

  // The part of a box that no scrolling or hiding ancestor cuts off.
  const clipped = (box, element) => {
    let { left, top, right, bottom } = box;
    for (let e = element; e && e !== document.documentElement; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.overflow === "visible" || e === document.body) continue;
      const r = e.getBoundingClientRect();
      [left, top] = [Math.max(left, r.left), Math.max(top, r.top)];
      [right, bottom] = [Math.min(right, r.right), Math.min(bottom, r.bottom)];
    }
    return { left, top, right, bottom };
  };

  // One box for each line of each visible text that scrolls with the page.
  const boxes = [], cut = [];
  const scrolls = (e) => e && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const floating = (e) => e.closest("header, .bd-sidebar, #pst-back-to-top, dialog, .sd-stretched-link, math");
  for (let node; (node = walker.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.data.trim() || floating(parent) || !shown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      const right = r.right > innerWidth + 1 && r.left < innerWidth && !scrolls(parent);
      if ((r.left < -1 && r.right > 0) || right) cut.push(name(parent));
      const box = clipped(r, parent);
      if (box.right - box.left > 3 && box.bottom - box.top > 3) boxes.push({ ...box, parent });
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  const overlaps = [];
  for (let i = 0; i < boxes.length; i++) {
    for (let j = i + 1; j < boxes.length && boxes[j].top < boxes[i].bottom - 1; j++) {
      const [a, b] = [boxes[i], boxes[j]];
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      const share = high / Math.min(a.bottom - a.top, b.bottom - b.top);
      if (wide > 3 && share > 0.4) overlaps.push(`${name(a.parent)} on ${name(b.parent)}`);
    }
  }

  // Text in a box that hides what does not fit, or an article that would scroll as a whole. A box
  // of one pixel is for those who listen.
  const hides = (e) => e.matches(".bd-article-container") || ["hidden", "clip"].includes(getComputedStyle(e).overflowX);
  const tooSmall = (e) => e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1;
  cut.push(...[...document.querySelectorAll("main *")].filter((e) => tooSmall(e) && hides(e) && shown(e)).map(name));

  const { clientWidth: wide, scrollWidth: asked } = document.documentElement;
  const leaves = (e) => e.getBoundingClientRect().right > wide + 1;
  const tooWide = asked > wide + 1
    ? [`${asked} px`, ...[...document.querySelectorAll("body *")].filter(leaves).slice(0, 3).map(name)]
    : [];
  const images = [...document.images];
  const formulas = [...document.querySelectorAll("math")];
  return {
    overlaps: overlaps.slice(0, 5),
    cut: cut.slice(0, 5),
    tooWide,
    silent: images.filter((i) => !i.alt.trim() && i.getAttribute("role") !== "presentation").map((i) => i.src.slice(-60)),
    broken: images.filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src.slice(-60)),
    unread: formulas.filter((m) => /\\[a-z]/i.test(m.textContent) || (shown(m) && m.getBoundingClientRect().width < 4)).map(name),
  };
}
