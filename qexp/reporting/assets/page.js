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

function next(element, selector) {
  do element = element.nextElementSibling; while (!element.matches(selector));
  return element;
}

// A table that is wider than the page has buttons that scroll it: some systems show no bar until one scrolls.
for (const hint of document.querySelectorAll(".sideways")) {
  const box = next(hint, ".scroll");
  const observer = new ResizeObserver(() => { hint.hidden = box.scrollWidth <= box.clientWidth + 1; });
  for (const element of [box, box.firstElementChild]) observer.observe(element);
  hint.querySelectorAll("button").forEach((button, index) => {
    button.addEventListener("click", () => { box.scrollLeft += (index ? 0.6 : -0.6) * box.clientWidth; });
  });
}

// A filter keeps the rows that have every word, in any column.
function filter(input) {
  const count = input.closest("label").nextElementSibling;
  const rows = next(count, ".scroll").querySelector("table").originalRows;
  const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  count.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
}

for (const input of document.querySelectorAll(".filter input")) {
  input.addEventListener("input", () => filter(input));
}

// Charts: Vega-Lite draws the numbers of the table below each chart, in the colours of the page.
const SPECIFICATIONS = JSON.parse(document.getElementById("specifications").textContent);

function rowsOf(figure) {
  const table = figure.querySelector(".data table");
  const columns = [...table.tHead.rows[0].cells].map((cell) => cell.dataset);
  return [...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((cell, index) => [
    columns[index].field, "number" in columns[index] ? Number(cell.textContent) : cell.textContent,
  ])));
}

function theme(width) {
  const style = getComputedStyle(document.documentElement);
  const [ink, quiet, line] = ["--ink", "--quiet", "--line"].map((name) => style.getPropertyValue(name).trim());
  const labels = { labelColor: quiet, titleColor: quiet, titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 12 };
  return {
    background: "transparent", font: getComputedStyle(document.body).fontFamily, view: { stroke: null },
    axis: { ...labels, gridColor: line, domainColor: line, tickColor: line },
    axisY: { labelLimit: Math.round(width * 0.42) }, axisBand: { grid: false },
    axisXQuantitative: { labelFlush: false, labelOverlap: "greedy", labelSeparation: 8 },
    legend: { ...labels, symbolStrokeWidth: 2, labelLimit: Math.round(width * 0.8), columns: width < 460 ? 1 : 2 }, text: { fill: ink },
  };
}

// Labels of dots: each at the first corner of its dot where it covers no other label and no dot.
const CORNERS = [["start", 0, 0], ["start", 0, 22], ["end", -12, 0], ["end", -12, 22]];

function covers(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function separate(target) {
  const dots = [...target.querySelectorAll(".mark-symbol.role-mark path")];
  const edge = target.getBoundingClientRect(), placed = [];
  for (const text of target.querySelectorAll(".mark-text.role-mark text")) {
    if (!text.textContent) continue;
    const start = text.getAttribute("transform");
    const put = ([anchor, x, y]) => {
      text.setAttribute("text-anchor", anchor);
      text.setAttribute("transform", `${start} translate(${x},${y})`);
      return text.getBoundingClientRect();
    };
    const isFree = (box) => box.left >= edge.left && box.right <= edge.right
      && !placed.some((other) => covers(box, other));
    const free = CORNERS.filter((corner) => isFree(put(corner)));
    const clear = free.find((corner) => {
      const box = put(corner);
      return !dots.some((dot) => covers(box, dot.getBoundingClientRect()));
    });
    const chosen = clear || free[0];
    if (!chosen) text.textContent = ""; // its numbers are in the table
    else placed.push(put(chosen));
  }
}

function draw(figure) {
  if (figure.hidden || figure.closest("details:not([open])")) return;
  const target = figure.querySelector(".drawing");
  const specification = {
    ...SPECIFICATIONS[figure.dataset.spec],
    height: Number(figure.dataset.height),
    data: { values: rowsOf(figure) },
    description: `${figure.querySelector("figcaption").textContent}; its numbers are in the table below`,
  };
  const settings = { ast: true, actions: false, renderer: "svg", config: theme(target.clientWidth) };
  const labels = figure.querySelector(".data th[data-field=label]");
  figure.drawn = vegaEmbed(target, specification, settings).then(() => labels && separate(target));
}

function drawAll() {
  for (const figure of document.querySelectorAll("figure")) draw(figure);
}

// Galleries of one chart at a time: the same run is shown in all that have it.
function show(select, group) {
  const figures = [...select.closest("section").querySelectorAll("figure")];
  if (!figures.some((figure) => figure.dataset.group === group)) return;
  select.value = group;
  for (const figure of figures) {
    figure.hidden = figure.dataset.group !== group;
    if (!figure.drawn) draw(figure);
  }
}

const selects = [...document.querySelectorAll(".choice select")];
for (const select of selects) {
  select.value = select.options[0].value; // what a browser kept from before a reload is not what is shown
  select.addEventListener("change", () => {
    const group = select.value;
    for (const each of selects) show(each, group);
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
