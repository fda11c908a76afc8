"use strict";
/* The page's behaviour: one set of filters for every figure and the table of runs; figures that fit the window. */
(() => {
  const NONE = "–"; // a setting that does not apply: such runs stay, whatever is chosen
  const MANY = 2500; // marks from which a canvas is faster than SVG
  const ERRORS = 1; // that Vega tells the console of
  const LISTED = 300; // rows of a figure's numbers on the page
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const themes = read("themes");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const form = document.getElementById("filters");
  const figures = {};

  /* Columns as they travel -> rows. A column of few texts is its texts and their places. */
  const unpack = ({ names, columns, length }) => {
    const value = columns.map((one) => (Array.isArray(one) ? (i) => one[i] : (i) => one.of[one.at[i]]));
    return Array.from({ length }, (_, i) => Object.fromEntries(names.map((name, j) => [name, value[j](i)])));
  };

  const chosen = () => {
    const all = form ? [...new FormData(form)] : [];
    return Object.fromEntries(all.filter(([, value]) => value !== ""));
  };
  const applies = (row, choice) =>
    Object.entries(choice).every(([name, value]) => !(name in row) || row[name] === value || row[name] === NONE);

  /* The choice of a figure that shows one value of some settings at a time. */
  const choiceOf = (figure) => ({ ...figure.single, ...chosen() });

  const tell = (figure, count) => {
    const unchosen = Object.entries(figure.single).filter(([name]) => !(name in chosen()));
    const shown = figure.root.querySelector(".shown");
    const words = unchosen.map(([name, value]) => `${figure.labels[name]} ${value}`).join(", ");
    shown.textContent = count ? `Shown: ${words}. The filters choose others.` : "Nothing here matches the filters.";
    shown.hidden = Boolean(count) && unchosen.length === 0;
  };

  /* ---------------------------------------------------------------- charts */

  const facetField = (spec) => spec.facet && spec.facet.field;

  const fitted = (figure, rows, width) => {
    const spec = structuredClone(figure.spec);
    spec.datasets = { [figure.dataset]: rows };
    const field = facetField(spec);
    if (!field) {
      spec.width = Math.max(figure.floor, Math.min(width - figure.margin, 640));
      return spec;
    }
    const independent = Boolean(spec.resolve && spec.resolve.scale);
    const panels = new Set(rows.map((row) => row[field])).size;
    const each = figure.least + (independent ? 60 : 20);
    spec.columns = Math.max(1, Math.min(panels, figure.most, Math.floor((width - 40) / each)));
    spec.columns = Math.ceil(panels / Math.ceil(panels / spec.columns)); // no row much shorter than the others
    const room = independent ? width / spec.columns - 78 : (width - figure.margin) / spec.columns - 36;
    spec.spec.width = Math.max(figure.floor, Math.min(Math.floor(room), figure.widest));
    if (figure.ratio) spec.spec.height = Math.round(Math.min(Math.max(figure.ratio * spec.spec.width, 120), 250));
    return spec;
  };

  const options = (rows, width) => {
    const config = structuredClone(dark.matches ? themes.dark : themes.light);
    config.background = "transparent";
    config.legend.columns = Math.max(2, Math.floor(width / 130));
    const renderer = rows.length > MANY ? "canvas" : "svg";
    const tooltip = { theme: dark.matches ? "dark" : "light" };
    return { actions: false, logLevel: ERRORS, mode: "vega-lite", renderer, config, tooltip };
  };

  const draw = async (figure) => {
    const chart = figure.root.querySelector(".chart");
    const rows = figure.rows.filter((row) => applies(row, choiceOf(figure)));
    figure.shown = rows;
    tell(figure, rows.length);
    if (figure.root.querySelector(".numbers").open) list(figure);
    if (figure.maps) return drawMaps(figure);
    const width = chart.clientWidth;
    if (figure.view) figure.view.finalize();
    figure.view = null;
    if (rows.length === 0) return chart.replaceChildren();
    const drawn = document.createElement("div"); // Vega names the element it draws into; the outer one keeps our words
    figure.view = (await vegaEmbed(drawn, fitted(figure, rows, width), options(rows, width))).view;
    chart.replaceChildren(drawn);
  };

  let turn = 0;
  const drawAll = async () => {
    const mine = ++turn;
    document.body.dataset.drawing = "true";
    for (const figure of Object.values(figures)) {
      if (mine !== turn) return;
      try { await draw(figure); } catch (error) { console.error(`figure ${figure.id} cannot be drawn`, error); }
      await new Promise((done) => setTimeout(done)); // keeps the page alive between two figures
    }
    if (mine === turn) delete document.body.dataset.drawing;
  };

  const shownText = (value) => {
    if (value === null || value === undefined) return NONE;
    return String(typeof value === "number" ? Number(value.toPrecision(5)) : value);
  };

  /* The numbers of a figure as a table, made when it is opened. */
  const list = (figure) => {
    const box = figure.root.querySelector(".numbers .scroll");
    const rows = figure.shown.slice(0, LISTED);
    const names = figure.listed;
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of names) {
      head.append(Object.assign(document.createElement("th"), { scope: "col", textContent: name.replaceAll("_", " ") }));
    }
    const body = table.createTBody();
    for (const row of rows) {
      const tr = body.insertRow();
      for (const name of names) {
        const td = tr.insertCell(), value = row[name];
        td.textContent = shownText(value);
        if (typeof value === "number") td.className = "number";
      }
    }
    const note = document.createElement("p");
    note.className = "caption";
    const all = figure.shown.length;
    note.textContent = rows.length < all ? `The first ${rows.length} of ${all} rows; the CSV has all.` : `${all} rows.`;
    box.replaceChildren(note, table);
  };

  /* ---------------------------------------------------------------- maps of the inputs, and their course */

  const ramp = themes.ramp.map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));
  const colourOf = (share) => {
    const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1), low = Math.min(Math.floor(at), ramp.length - 2);
    return ramp[low].map((value, i) => value + (ramp[low + 1][i] - value) * (at - low));
  };
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const when = (epoch) => (epoch === null ? "the end" : `epoch ${epoch}`);

  /* Where a byte of a map stands on the scale that all maps share. */
  const shareOf = (figure, map, byte) =>
    (map.low + (byte / 255) * (map.top - map.low) - figure.low) / (figure.top - figure.low || 1);

  const paint = (figure) => {
    const share = Number(figure.slider.value) / Math.max(1, Number(figure.slider.max));
    for (const { canvas, map } of figure.canvases) {
      const frame = Math.round(share * (map.epochs.length - 1)), cells = map.height * map.width;
      const image = new ImageData(map.width, map.height);
      for (let i = 0; i < cells; i++) {
        image.data.set([...colourOf(shareOf(figure, map, map.data[frame * cells + i])), 255], 4 * i);
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
      canvas.dataset.frame = frame;
    }
    const longest = figure.longest;
    const frame = Math.round(share * (longest.epochs.length - 1));
    figure.readout.textContent = when(longest.epochs[frame]);
    figure.slider.setAttribute("aria-valuetext", when(longest.epochs[frame]));
  };

  const play = (figure) => {
    const button = figure.button;
    const stop = () => { clearInterval(figure.timer); figure.timer = null; button.textContent = "Play"; };
    if (figure.timer) return stop();
    if (figure.slider.value === figure.slider.max) figure.slider.value = 0;
    button.textContent = "Pause";
    paint(figure);
    figure.timer = setInterval(() => {
      figure.slider.value = Number(figure.slider.value) + 1;
      paint(figure);
      if (figure.slider.value === figure.slider.max) stop();
    }, 500);
  };

  const makePlayer = (figure) => {
    const player = document.createElement("div");
    player.className = "player";
    const label = document.createElement("label");
    figure.button = Object.assign(document.createElement("button"), { type: "button", textContent: "Play" });
    const range = { type: "range", min: 0, max: 0, step: 1, id: `slider-${figure.id}` };
    figure.slider = Object.assign(document.createElement("input"), range);
    figure.readout = document.createElement("output");
    label.className = "hidden"; label.htmlFor = figure.slider.id; label.textContent = "Time in training";
    figure.button.addEventListener("click", () => play(figure));
    figure.slider.addEventListener("input", () => paint(figure));
    player.append(figure.button, label, figure.slider, figure.readout);
    return player;
  };

  const drawMaps = (figure) => {
    const chart = figure.root.querySelector(".chart");
    if (!figure.slider) { figure.player = makePlayer(figure); chart.append(figure.player); }
    const maps = figure.maps.filter((map) => applies(map.settings, choiceOf(figure)));
    const grid = document.createElement("div");
    grid.className = maps.some((map) => map.height > 1) ? "atlas" : "atlas strips";
    figure.canvases = maps.map((map) => {
      const box = document.createElement("div"), name = document.createElement("span");
      const canvas = Object.assign(document.createElement("canvas"), { width: map.width, height: map.height });
      name.textContent = [map.settings.series, map.settings.panel].filter(Boolean).join(" · ");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Connections of the inputs, ${name.textContent}: at most ${map.top.toPrecision(3)}`);
      canvas.title = `${name.textContent}: at most ${map.top.toPrecision(3)} connections`;
      box.append(name, canvas);
      grid.append(box);
      return { canvas, map };
    });
    chart.querySelectorAll(".atlas, .key").forEach((one) => one.remove());
    if (maps.length === 0) { figure.player.hidden = true; return; }
    figure.top = Math.max(...maps.map((map) => map.top));
    figure.low = Math.min(...maps.map((map) => map.low));
    figure.longest = maps.reduce((a, b) => (b.epochs.length > a.epochs.length ? b : a));
    figure.slider.max = figure.longest.epochs.length - 1;
    figure.slider.value = figure.slider.max;
    figure.player.hidden = figure.longest.epochs.length < 2;
    const key = document.createElement("p"), bar = document.createElement("i");
    key.className = "key";
    bar.style.background = `linear-gradient(to right, ${themes.ramp.join(", ")})`;
    key.append(String(Number(figure.low.toPrecision(3))), bar, `${Number(figure.top.toPrecision(3))} connections`);
    chart.append(grid, key);
    paint(figure);
  };

  /* ---------------------------------------------------------------- tables: every one sorts, that of runs is filtered */

  const table = document.getElementById("runs-table");
  const valueOf = (row, column) => {
    const cell = row.cells[column], data = cell.querySelector("data");
    return data ? Number(data.value) : cell.textContent;
  };
  const isNothing = (value) => value === NONE;
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const sortBy = (header) => {
    const column = header.cellIndex, down = header.getAttribute("aria-sort") === "ascending";
    const { tHead, tBodies: [body] } = header.closest("table");
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    rows.sort(([a], [b]) => isNothing(a) - isNothing(b) || (down ? compare(b, a) : compare(a, b)));
    for (const other of tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
    document.getElementById("sorted").textContent = `Sorted by ${header.textContent}, ${down ? "descending" : "ascending"}`;
  };

  const filterRuns = () => {
    if (!table) return;
    const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const choice = chosen();
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(applies(JSON.parse(row.dataset.settings), choice) && words.every((word) => text.includes(word)));
      count += !row.hidden;
    }
    document.getElementById("count").textContent = `${count} of ${table.tBodies[0].rows.length} runs`;
    if (form) document.getElementById("filtered").textContent = Object.keys(choice).length ? `${count} runs match` : "all runs";
  };

  /* ---------------------------------------------------------------- what is kept over a reload, and the start */

  const keep = () => {
    try { sessionStorage.setItem(location.pathname, JSON.stringify(chosen())); } catch { /* not allowed here */ }
  };
  const restore = () => {
    let kept = {};
    try { kept = JSON.parse(sessionStorage.getItem(location.pathname)) || {}; } catch { /* not allowed here */ }
    for (const [name, value] of Object.entries(kept)) {
      const select = form && form.elements.namedItem(name);
      if (select && [...select.options].some((option) => option.value === value)) select.value = value;
    }
  };
  const changed = () => { keep(); filterRuns(); return drawAll(); };

  const follow = Number(document.body.dataset.follow);
  if (follow) setInterval(() => { if (document.getElementById("reload").checked) location.reload(); }, 1000 * follow);

  if (form) {
    const details = form.querySelector("details");
    const narrow = matchMedia("(max-width: 40rem)");
    const arrange = () => { details.open = !narrow.matches; };
    arrange();
    narrow.addEventListener("change", arrange);
    restore();
    form.addEventListener("change", changed);
    form.addEventListener("reset", () => setTimeout(changed));
  }
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
  if (table) document.getElementById("search").addEventListener("input", filterRuns);
  for (const root of document.querySelectorAll("figure[data-figure]")) {
    const id = root.dataset.figure, figure = { ...read(`data-${id}`), id, root };
    figure.rows = unpack(figure.table);
    if (figure.maps) for (const map of figure.maps) map.data = bytes(map.frames);
    figures[id] = figure;
    root.querySelector(".numbers").addEventListener("toggle", (event) => { if (event.target.open) list(figure); });
  }
  dark.addEventListener("change", drawAll);
  let last = innerWidth, pending = null;
  addEventListener("resize", () => {
    if (Math.abs(innerWidth - last) < 8) return;
    last = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(drawAll, 200);
  });
  window.report = { figures };
  filterRuns();
  drawAll();
})();
