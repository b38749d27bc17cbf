"use strict";

// Tables: a header sorts up, then down, then back to the order of the report.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
const words = new Intl.Collator("en", { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  return { number: "n" in cell.dataset ? Number(cell.dataset.n) : null, text: cell.textContent };
}

// Numbers come before words, in both directions: what failed or is missing stays below.
function compare(a, b, sign) {
  if (a.number !== null && b.number !== null) return sign * (a.number - b.number);
  if (a.number !== null || b.number !== null) return a.number !== null ? -1 : 1;
  return sign * words.compare(a.text, b.text);
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells;
  const order = NEXT[head[column].getAttribute("aria-sort")];
  for (const cell of head) cell.setAttribute("aria-sort", "none");
  head[column].setAttribute("aria-sort", order);
  const rows = table.originalRows.map((row) => [key(row, column), row]);
  const sign = order === "descending" ? -1 : 1;
  if (order !== "none") rows.sort((a, b) => compare(a[0], b[0], sign));
  table.tBodies[0].replaceChildren(...rows.map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.originalRows = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => sort(table, column));
  });
}

// Galleries of one chart at a time: the same run is shown in all that have it.
function show(select, group) {
  const figures = [...select.closest("section").querySelectorAll("figure")];
  if (!figures.some((figure) => figure.dataset.group === group)) return;
  select.value = group;
  for (const figure of figures) figure.hidden = figure.dataset.group !== group;
}

const selects = [...document.querySelectorAll(".choice select")];
for (const select of selects) {
  select.value = select.options[0].value; // what a browser kept from before a reload is not what is shown
  select.addEventListener("change", () => {
    const group = select.value;
    for (const each of selects) show(each, group);
  });
}

// Marks tell their numbers to a pointer that hovers, and below the chart to one that taps.
document.addEventListener("click", (event) => {
  const mark = event.target.closest(".drawing svg > *");
  const title = mark && mark.querySelector("title");
  if (title) mark.closest("figure").querySelector(".read").textContent = title.textContent;
});
