"use strict";
const compareWords = new Intl.Collator(undefined, {numeric: true}).compare;

document.querySelectorAll(".members").forEach((section) => {
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("thead th")];
  const input = section.querySelector("input");
  const output = section.querySelector("output");
  const key = `${location.pathname} ${section.id}`;
  // Of each line its cells, and its row once it is shown. A browser takes long to lay
  // out many rows: no more than the page came with are in the table.
  let lines = [...body.rows].map((row) => (
    {cells: [...row.cells].map((cell) => cell.textContent), row}
  ));
  const most = lines.length;
  const rest = section.querySelector(".rest");
  if (rest) {
    const columns = JSON.parse(rest.textContent);
    columns[0][1].forEach((_, line) => {
      lines.push({cells: columns.map(([texts, places]) => texts[places[line]])});
    });
  }

  function rowOf(line) {
    if (!line.row) {
      line.row = document.createElement("tr");
      line.cells.forEach((text, at) => {
        const cell = document.createElement(at ? "td" : "th");
        if (!at) cell.scope = "row";
        cell.textContent = text;
        line.row.append(cell);
      });
    }
    return line.row;
  }

  // Empty cells are last in both directions; equal ones stay as they were.
  function sort(at, direction) {
    const filled = lines.filter((line) => line.cells[at] !== "");
    const numbers = filled.every((line) => !isNaN(line.cells[at]));
    const compare = numbers ? (a, b) => a - b : compareWords;
    const sign = direction === "descending" ? -1 : 1;
    filled.sort((a, b) => sign * compare(a.cells[at], b.cells[at]));
    lines = filled.concat(lines.filter((line) => line.cells[at] === ""));
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[at].setAttribute("aria-sort", direction);
  }

  function show() {
    const wanted = input.value.toLowerCase();
    const found = wanted ? lines.filter((line) => {
      line.text ??= line.cells.join(" ").toLowerCase();
      return line.text.includes(wanted);
    }) : lines;
    body.replaceChildren(...found.slice(0, most).map(rowOf));
    output.value = `${found.length} of ${lines.length}`;
    if (found.length > most) output.value += `, the first ${most} are shown`;
  }

  // A page that loads itself again looks as it did, where the browser keeps state.
  let sorted = null;
  function remember() {
    const state = JSON.stringify([input.value, sorted]);
    try { sessionStorage.setItem(key, state); } catch {}
  }
  try {
    [input.value, sorted] = JSON.parse(sessionStorage.getItem(key)) ?? ["", null];
  } catch {}

  heads.forEach((head, at) => {
    head.firstChild.addEventListener("click", () => {
      const again = head.getAttribute("aria-sort") === "ascending";
      sorted = [at, again ? "descending" : "ascending"];
      sort(...sorted);
      show();
      remember();
    });
  });
  input.addEventListener("input", () => { show(); remember(); });
  section.querySelector(".filter").hidden = false;
  if (heads[sorted?.[0]]) sort(...sorted);
  show();
});
