// What assistive technology needs and the theme leaves out.
const scrolling = new Map([
  [".table-wrapper", "Table"],
  [".highlight pre", "Code"],
  ["div.math", "Formula"],
]);

// What scrolls sideways can be reached with the keyboard, and says what it is.
function reach() {
  for (const [selector, name] of scrolling)
    for (const box of document.querySelectorAll(selector)) {
      if (box.scrollWidth <= box.clientWidth || box.tabIndex === 0) continue;
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
    }
}

addEventListener("DOMContentLoaded", () => {
  // The captions of the navigation are headings without a level.
  for (const caption of document.querySelectorAll("[role=heading]:not([aria-level])"))
    caption.setAttribute("aria-level", "2");
  reach();
});
addEventListener("load", reach);
addEventListener("resize", reach);
