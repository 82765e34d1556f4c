"use strict";
(() => {
  const { template, figures } = JSON.parse(document.getElementById("figures").textContent);
  const NARROW = 480; // CSS pixels of a drawing below which it gets smaller letters
  const PAPER = 680; // width of a drawing on a printed page

  // Colours and fonts stand in the style sheet, which knows light and dark.
  const named = (value, style) => {
    if (typeof value === "string") {
      const found = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return found ? style.getPropertyValue(found[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((inner) => named(inner, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, named(inner, style)]));
  };

  const draw = (width) => {
    const style = getComputedStyle(document.documentElement);
    const look = named(template, style);
    for (const figure of figures) {
      const place = document.getElementById(`plot-${figure.name}`);
      const layout = { ...named(figure.layout, style), template: look };
      if (width) Object.assign(layout, { width });
      if ((width || place.clientWidth) < NARROW) layout.font = { size: 11 };
      Plotly.react(place, named(figure.data, style), layout, {
        displayModeBar: false,
        responsive: !width,
      });
    }
  };

  const order = (cells) => (left, right) => {
    const [a, b] = [cells.get(left), cells.get(right)];
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1; // what is absent comes last, either way
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? (a < b ? -1 : 1) : x - y;
  };

  const sort = (table, column) => {
    const headings = [...table.tHead.rows[0].cells];
    const up = headings[column].getAttribute("aria-sort") !== "ascending";
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const cells = new Map([...body.rows].map((row) => [row, row.cells[column].dataset.key]));
    const present = [...body.rows].filter((row) => cells.get(row) !== "").sort(order(cells));
    const absent = [...body.rows].filter((row) => cells.get(row) === "");
    body.append(...(up ? present : present.reverse()), ...absent);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, column));
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  // Paper is white, and narrower than most screens.
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    draw(PAPER);
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    draw();
  });
  draw();
})();
