"use strict";
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
