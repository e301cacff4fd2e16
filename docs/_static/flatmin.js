// What scrolls sideways can be reached with the keyboard, and says what it is.
const names = new Map([
  [".table-wrapper", "Table"],
  [".highlight pre", "Code"],
  ["div.math", "Formula"],
]);

function reach() {
  for (const [selector, name] of names)
    for (const box of document.querySelectorAll(selector)) {
      if (box.scrollWidth <= box.clientWidth || box.tabIndex === 0) continue;
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
    }
}

addEventListener("DOMContentLoaded", reach);
addEventListener("resize", reach);
