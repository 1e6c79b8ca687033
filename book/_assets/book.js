/* Printing opens all folds; a phone gets tables that it can show; contents make way for asides; languages keep one's place. */
(() => {
  const folds = (inside) => [...inside.querySelectorAll("details")];

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds(document).filter((fold) => !fold.open);
    closed.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));

  const FEW = 80; // cells: more of them told row by row would make a page nobody scrolls through

  function fitTables() {
    const phone = matchMedia("(max-width: 600px)").matches;
    for (const table of document.querySelectorAll(".bd-article table:not(.attn-t)")) {
      table.classList.remove("wide", "told");
      const columns = [...table.querySelectorAll("thead tr:last-child > *")];
      if (!phone || table.scrollWidth <= table.clientWidth + 1 || !columns.length) continue;
      const rows = [...table.querySelectorAll("tbody tr")];
      table.classList.add(rows.length * columns.length <= FEW ? "told" : "wide");
      for (const row of rows)
        [...row.children].slice(1).forEach((cell, k) => (cell.dataset.column = columns[k + 1]?.textContent.trim() ?? ""));
    }
  }

  // Printed sentences wrap on a phone; what is set in columns keeps them. A fold is called what it shows.
  function tidyCells() {
    for (const printed of document.querySelectorAll(".bd-article .cell_output pre"))
      printed.classList.toggle("said", !/ {2}|\t/.test(printed.textContent));
    for (const summary of document.querySelectorAll(".bd-article details.hide > summary"))
      summary.removeAttribute("aria-label");
  }

  // Between these widths an aside lies where the page's contents are: they make way while one is in view.
  function makeWay() {
    const contents = document.querySelector(".bd-sidebar-secondary");
    if (!contents) return;
    const crowded = matchMedia("(min-width: 1280px) and (max-width: 1499.98px)");
    const seen = new Set();
    const decide = () => contents.classList.toggle("hide", crowded.matches && seen.size > 0);
    const watch = new IntersectionObserver((changes) => {
      for (const { target, isIntersecting } of changes) seen[isIntersecting ? "add" : "delete"](target);
      decide();
    });
    for (const aside of document.querySelectorAll(".bd-article .beside")) watch.observe(aside);
    crowded.addEventListener("change", decide);
  }

  // To the same place in the other language: sections have one address in both.
  addEventListener("click", ({ target }) => {
    if (target.matches?.("a.language")) target.hash = location.hash;
  });

  addEventListener("resize", fitTables);
  addEventListener("DOMContentLoaded", () => {
    tidyCells();
    makeWay();
    fitTables();
    document.fonts?.ready.then(fitTables);
  });
})();
