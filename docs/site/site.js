// A table that is wider than its place can be reached by Tab, and then scrolled by the arrow keys.
function makeWideTablesReachable() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Wide table");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  }
}

addEventListener("load", makeWideTablesReachable);
addEventListener("resize", makeWideTablesReachable);
