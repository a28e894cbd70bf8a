"use strict";
// Tables sort by a click (or Enter) on a heading and show the rows that have every word of the field above.
// A cell's data-v is its value where the text shows units; cells without any value stay at the end.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.textContent === "" ? null : cell.textContent;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (head, column) => {
    const up = head.getAttribute("aria-sort") !== (head.classList.contains("n") ? "descending" : "ascending");
    const sign = up === head.classList.contains("n") ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const keyed = rows.map((row, at) => ({ row, at, key: value(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.at - b.at;
      return sign * compare(a.key, b.key) || a.at - b.at;
    });
    body.append(...keyed.map((entry) => entry.row));
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head, column); });
  });
  const tools = document.createElement("div"), input = document.createElement("input"), count = document.createElement("span");
  tools.className = "tools";
  input.type = "search";
  input.placeholder = "rows that have …";
  input.setAttribute("aria-label", "Show only rows that have these words");
  tools.append(input, count);
  table.parentElement.before(tools);
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
}
