// Tables that can be sorted by their heads and filtered. Without this script they stand as they are, in full.
for (const tools of document.querySelectorAll(".tools")) {
  const filter = tools.querySelector("input");
  const shown = tools.querySelector(".shown");
  const rows = document.getElementById(filter.getAttribute("aria-controls")).tBodies[0].rows;
  tools.hidden = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      row.hidden = !row.dataset.text.includes(wanted);
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = count;
  });
}
for (const head of document.querySelectorAll(".sortable th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  const column = head.cellIndex;
  const numeric = head.dataset.sort === "number";
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const order = (a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
  button.addEventListener("click", () => {
    const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  });
}
