"use strict";
// Sorts tables by the column whose heading is clicked, and folds long ones.
(() => {
  const number = (cell) => Number.parseFloat(cell.textContent.replace("\u2212", "-").replace(/,/g, ""));
  // What is not a number comes last in both directions.
  const compare = (one, two, sign) => {
    const [a, b] = [number(one), number(two)];
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    const texts = Number.isNaN(a) && one.textContent.localeCompare(two.textContent, undefined, { numeric: true });
    return sign * (Number.isNaN(a) ? texts : a - b);
  };

  document.querySelectorAll("table[data-sortable]").forEach((table) => {
    const body = table.tBodies[0];
    const shown = Number(table.dataset.folded);
    let folded = body.rows.length > shown + 5;
    const fold = () => [...body.rows].forEach((row, i) => { row.hidden = folded && i >= shown; });
    if (folded) {
      const button = document.createElement("button");
      button.textContent = `Show all ${body.rows.length.toLocaleString("en")}`;
      button.addEventListener("click", () => { folded = false; fold(); button.remove(); });
      table.parentElement.after(button);
      fold();
    }
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const sign = heading.ariaSort === "ascending" ? -1 : 1;
        const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign));
        [...heading.parentElement.cells].forEach((other) => other.removeAttribute("aria-sort"));
        heading.ariaSort = sign > 0 ? "ascending" : "descending";
        body.append(...rows);
        fold();
      });
    });
  });
})();

// Draws every figure with the colours of the current theme; one that is folded away, when it is opened.
(async () => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("[data-figure]")].map((place) => ({
    place,
    source: JSON.parse(place.querySelector("script").textContent),
    drawn: false,
  }));

  // "var(--name)" anywhere in a figure becomes the value that the style sheet has for it now.
  const resolve = (value, style) => {
    if (typeof value === "string") {
      const found = /^var\((--[\w-]+)\)$/.exec(value);
      return found ? style.getPropertyValue(found[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };

  // The library is in this page, compressed: it comes from nowhere else.
  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const library = document.createElement("script");
    library.textContent = await new Response(stream).text();
    document.head.append(library);
  };

  const draw = (figure) => {
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = resolve(figure.source, style);
    layout.font.family = getComputedStyle(document.body).fontFamily;
    // On a narrow screen a legend above takes two lines: make room for it by what the figure has to say.
    if (window.innerWidth < 600) layout.font.size = 11.5;
    figure.drawn = true;
    return Plotly.react(figure.place, data, layout, { displayModeBar: false, responsive: true });
  };

  const redraw = () => figures.filter((figure) => figure.drawn).forEach(draw);
  dark.addEventListener("change", redraw);

  if (!("DecompressionStream" in window)) {  // browsers from before 2023
    figures.forEach(({ place }) => place.append("This browser is too old for the figure; the tables hold its numbers."));
    return;
  }
  figures.forEach(({ place, source }) => { place.style.minHeight = `${source.layout.height}px`; });
  await unpack();

  figures.forEach((figure) => {
    const details = figure.place.closest("details");
    // A figure within a closed <details> has no width yet: it is drawn when opened.
    if (details && !details.open) details.addEventListener("toggle", () => draw(figure), { once: true });
    else draw(figure);
  });
})();
