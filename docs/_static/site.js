// Paper is white: a reader in dark mode prints the light theme, with every solution open.
let before, closed;
addEventListener("beforeprint", () => {
  before = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  closed = document.querySelectorAll("article details:not([open])");
  closed.forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = before;
  closed.forEach((one) => (one.open = false));
});

// What scrolls sideways can be reached by keyboard.
addEventListener("load", () => {
  const boxes = "article :is(pre, .wide, .formula, .figure, figure, p:has(> img))";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
