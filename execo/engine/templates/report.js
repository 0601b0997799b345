"use strict";
// Each table of the page: all its rows are in a script beside it, as JSON; those that are shown are
// made of them here, as text, never as markup.
for (const place of document.querySelectorAll(".table")) {
  const {kinds, rows, first} = JSON.parse(place.querySelector("script").textContent);
  const find = (selector) => place.querySelector(selector);
  const body = find("tbody");
  const headings = [...place.querySelectorAll("th")];
  const choices = [...place.querySelectorAll("select[data-choice]")];
  const chosen = kinds.flatMap((kind, column) => kind === "state" ? [column] : []);
  const state = {words: [], column: -1, down: false, page: 0, size: first};
  let shown = rows;
  let texts = null;

  const compare = (a, b) => {
    // What is missing comes last; numbers before texts.
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return order.compare(a, b);
  };
  const order = new Intl.Collator(undefined, {numeric: true});
  const missing = (value) => value === null || value === "";

  function select() {
    // Made at the first filter: a page that is only read needs none.
    if (state.words.length && !texts)
      texts = new Map(rows.map((row) => [row, row.join("\n").toLowerCase()]));
    shown = rows.filter((row) =>
      chosen.every((column, at) => !choices[at].value || String(row[column] ?? "") === choices[at].value) &&
      state.words.every((word) => texts.get(row).includes(word)));
    const {column, down} = state;
    if (column >= 0)
      shown.sort((one, other) => {
        const a = one[column], b = other[column];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return down ? compare(b, a) : compare(a, b);
      });
    state.page = 0;
    draw();
  }

  function draw() {
    const size = state.size || shown.length || 1;
    const begin = state.page * size;
    const end = Math.min(begin + size, shown.length);
    const made = document.createDocumentFragment();
    for (let at = begin; at < end; at++) {
      const line = document.createElement("tr");
      shown[at].forEach((value, column) => {
        const cell = document.createElement("td");
        const long = typeof value === "string" && (value.length > 32 || value.includes("\n"));
        cell.className = long ? `${kinds[column]} long` : kinds[column];
        cell.textContent = value ?? "";
        if (kinds[column] === "state") cell.dataset.is = value ?? "";
        line.append(cell);
      });
      made.append(line);
    }
    body.replaceChildren(made);
    say();
  }

  function say() {
    const size = state.size || shown.length || 1;
    const last = Math.max(0, Math.ceil(shown.length / size) - 1);
    const number = (count) => count.toLocaleString("en").replaceAll(",", "\u202f");
    const all = `${number(rows.length)} row${rows.length === 1 ? "" : "s"}`;
    find(".found").textContent =
      shown.length === rows.length ? all : `${number(shown.length)} of ${all}`;
    find(".shown").textContent = shown.length
      ? `${number(state.page * size + 1)} to ${number(Math.min(shown.length, (state.page + 1) * size))}`
      : "none";
    find(".pages").hidden = rows.length <= first;
    for (const button of place.querySelectorAll("[data-go]"))
      button.disabled = ["first", "back"].includes(button.dataset.go)
        ? state.page === 0 : state.page >= last;
    state.last = last;
  }

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      state.down = state.column === column && !state.down;
      state.column = column;
      for (const one of headings) one.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      select();
    });
  });
  find("input").addEventListener("input", (event) => {
    state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    select();
  });
  chosen.forEach((column, at) => {
    const counts = new Map();
    for (const row of rows) counts.set(row[column] ?? "", (counts.get(row[column] ?? "") || 0) + 1);
    choices[at].append(new Option("all", ""));
    for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1]))
      choices[at].append(new Option(`${value} (${count})`, value));
    choices[at].addEventListener("change", select);
  });
  find("[data-size]").addEventListener("change", (event) => {
    state.size = Number(event.target.value);
    state.page = 0;
    draw();
  });
  for (const button of place.querySelectorAll("[data-go]"))
    button.addEventListener("click", () => {
      const {page, last} = state;
      state.page = {first: 0, back: page - 1, on: page + 1, last}[button.dataset.go];
      draw();
      find(".scroll").scrollTop = 0;
    });
  find(".tools").hidden = rows.length < 2;
  say();
}
