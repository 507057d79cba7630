"use strict";
/* Sorts and filters tables. Without it, a page says all the same. */
for (const table of document.querySelectorAll("table.cards")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    if (!head.textContent.trim()) return; /* what has no name is sorted by none */
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.key || row.cells[column].textContent.trim();
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const number = (row) => (key(row) === "" ? NaN : Number(key(row)));
      const rows = [...body.rows];
      const numeric = rows.some((row) => row.cells[column].dataset.key) && rows.every((row) => !row.cells[column].dataset.key || !isNaN(number(row)));
      rows.sort(numeric ? (a, b) => (number(a) || 0) - (number(b) || 0) : order);
      body.append(...(down ? rows.reverse() : rows));
    });
  });
  if (!("filter" in table.dataset)) continue;
  const label = document.createElement("label");
  const field = document.createElement("input");
  field.type = "search";
  label.className = "filter";
  label.append("Filter: ", field);
  table.parentElement.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(words);
  });
}
