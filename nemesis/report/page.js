"use strict";
// A click on a column heading sorts the rows of each group; the page also works without scripts.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        rows.sort((a, b) => compare(a.cells[column], b.cells[column], down ? -1 : 1));
        body.append(...rows);
      }
    });
  });
}
// Compare numbers by value; cells without a number stay last.
function compare(a, b, sign) {
  const [x, y] = [a, b].map((cell) => (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v)));
  if (!isNaN(x) && !isNaN(y)) return sign * (x - y);
  if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
  return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
}
// Say where a table is wider than the screen.
function hint() {
  for (const part of document.querySelectorAll(".scroll")) {
    part.classList.toggle("scrolls", part.scrollWidth > part.clientWidth + 1);
  }
}
hint();
window.addEventListener("resize", hint);
document.addEventListener("toggle", hint, true);
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.long)")) part.open = true;
});
