// Paper is white: a reader in dark mode prints the light theme, with every solution open.
let before;
addEventListener("beforeprint", () => {
  before = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  document.querySelectorAll("article details").forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => (document.documentElement.dataset.theme = before));

// What scrolls sideways can be reached by keyboard.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("article :is(pre, .wide, .formula, .figure, figure)")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
