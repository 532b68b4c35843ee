"use strict";
const compareWords = new Intl.Collator(undefined, {numeric: true}).compare;

document.querySelectorAll(".members").forEach((section) => {
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("thead th")];
  const input = section.querySelector("input");
  const output = section.querySelector("output");
  const key = `${location.pathname} ${section.id}`;
  const texts = new Map();  // of a whole row, for the filter
  let rows = [...body.rows];  // as they are shown
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => cell.textContent);
    texts.set(row, cells.join(" ").toLowerCase());
  }

  // Empty cells are last in both directions; equal ones stay as they were.
  function sort(at, direction) {
    const value = new Map(rows.map((row) => [row, row.cells[at].textContent]));
    const filled = rows.filter((row) => value.get(row) !== "");
    const numbers = filled.every((row) => !isNaN(value.get(row)));
    const compare = numbers ? (a, b) => a - b : compareWords;
    const sign = direction === "descending" ? -1 : 1;
    filled.sort((a, b) => sign * compare(value.get(a), value.get(b)));
    rows = filled.concat(rows.filter((row) => value.get(row) === ""));
    for (const row of rows) body.append(row);
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[at].setAttribute("aria-sort", direction);
  }

  function filter() {
    const wanted = input.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      row.hidden = !texts.get(row).includes(wanted);
      count += !row.hidden;
    }
    output.value = `${count} of ${rows.length}`;
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
      remember();
    });
  });
  input.addEventListener("input", () => { filter(); remember(); });
  section.querySelector(".filter").hidden = false;
  if (heads[sorted?.[0]]) sort(...sorted);
  filter();
});
