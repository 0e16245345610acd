"use strict";
// Everything is built with createElement and textContent: no text of the run is ever parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById("embedded").textContent);
  const find = (selector, root = document) => root.querySelector(selector);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // --- read-out of the curves ---------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const digits = (value) =>
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en")
      : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(4)));

  for (const plot of document.querySelectorAll(".plot.hover")) {
    const chart = data.charts[Number(plot.dataset.chart)];
    const svg = find("svg", plot);
    const readout = plot.nextElementSibling;
    const idle = readout.textContent;
    const steps = [...new Set(chart.series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
    const [low, high] = chart.y;
    const across = (step) => (100 * (step - chart.x[0])) / (chart.x[1] - chart.x[0]);
    const down = (value) =>
      chart.height * (1 - (chart.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)));
    const cursor = document.createElementNS(SVG, "g");
    let at = -1;
    svg.append(cursor);

    function show(index) {
      at = Math.max(0, Math.min(steps.length - 1, index));
      const x = `${across(steps[at])}%`;
      const line = document.createElementNS(SVG, "line");
      for (const [name, value] of [["class", "cursor"], ["x1", x], ["x2", x], ["y1", 0], ["y2", chart.height]])
        line.setAttribute(name, value);
      cursor.replaceChildren(line);
      readout.replaceChildren(`step ${steps[at].toLocaleString("en")}`);
      for (const one of chart.series) {
        const point = one.points.find((each) => each[0] === steps[at]);
        if (!point) continue;
        const dot = document.createElementNS(SVG, "circle");
        for (const [name, value] of [["class", `spot ${one.kind}`], ["cx", x], ["cy", down(point[1])], ["r", 4]])
          dot.setAttribute(name, value);
        cursor.append(dot);
        readout.append(` · ${one.name} `, make("b", {}, digits(point[1])));
      }
    }
    function hide() {
      at = -1;
      cursor.replaceChildren();
      readout.textContent = idle;
    }
    plot.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const step = chart.x[0] + ((event.clientX - box.left) / box.width) * (chart.x[1] - chart.x[0]);
      let best = 0;
      steps.forEach((each, i) => { if (Math.abs(each - step) < Math.abs(steps[best] - step)) best = i; });
      show(best);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
      const jump = { Home: 0, End: steps.length - 1 }[event.key];
      if (move === undefined && jump === undefined) return;
      event.preventDefault();
      show(jump === undefined ? at + move : jump);
    });
  }

  // --- settings -----------------------------------------------------------------------------------------------

  const chosen = find("#chosen");
  if (chosen && find(".origin")) {
    find(".switch").hidden = false;
    chosen.addEventListener("change", () => {
      for (const table of document.querySelectorAll(".settings")) {
        table.classList.toggle("chosen", chosen.checked);
        table.parentElement.classList.toggle("empty", chosen.checked && !find("tr:not(.default)", table));
      }
    });
  }

  // --- the section being read, in the table of contents ---------------------------------------------------------

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.classList.remove("here");
        links.get(entry.target.id).classList.add("here");
      }
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  for (const id of links.keys()) watcher.observe(document.getElementById(id));

  // --- graded examples ------------------------------------------------------------------------------------------

  const list = find(".list");
  if (!list) return;
  const PAGE = 50;
  const words = (name) => name.replaceAll("_", " ");
  const state = (answer) => (!answer ? "absent" : answer.value === null ? "unjudged" : answer.value >= 1 ? "right" : "wrong");
  const OUTCOMES = {
    "tuned wrong": (base, tuned) => tuned === "wrong",
    "tuned right": (base, tuned) => tuned === "right",
    "gained: base wrong, tuned right": (base, tuned) => base === "wrong" && tuned === "right",
    "lost: base right, tuned wrong": (base, tuned) => base === "right" && tuned === "wrong",
    "both wrong": (base, tuned) => base === "wrong" && tuned === "wrong",
    "both right": (base, tuned) => base === "right" && tuned === "right",
    "not judged": (base, tuned) => base === "unjudged" || tuned === "unjudged",
  };
  const rows = data.examples.map((example) => {
    const { base, tuned } = example.answers;
    return {
      example,
      base: state(base),
      tuned: state(tuned),
      failures: [tuned, base].filter(Boolean).map((answer) => answer.failure),
      text: [example.id, example.question, example.gold, ...[base, tuned].filter(Boolean).flatMap((a) => [a.raw, a.note])]
        .join("\n").toLowerCase(),
    };
  });

  const search = find("#search");
  const bySet = find("#by-set");
  const byOutcome = find("#by-outcome");
  const byFailure = find("#by-failure");
  const byKind = find("#by-kind");
  const fill = (select, values, label = words) => {
    for (const value of values) select.append(make("option", { value }, label(value)));
    select.parentElement.hidden = values.length === 0;
  };
  const distinct = (values) => [...new Set(values)].filter(Boolean).sort();
  fill(bySet, data.sets.length > 1 ? data.sets : []);
  fill(byOutcome, Object.keys(OUTCOMES));
  fill(byFailure, distinct(rows.flatMap((row) => row.failures)));
  fill(byKind, distinct(rows.map((row) => row.example.kind)));
  find(".filters").hidden = false;

  let matching = rows;
  let drawn = 0;
  const more = find(".more");

  function apply() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = rows.filter(
      (row) =>
        (!bySet.value || data.sets[row.example.set] === bySet.value) &&
        (!byOutcome.value || OUTCOMES[byOutcome.value](row.base, row.tuned)) &&
        (!byFailure.value || row.failures.includes(byFailure.value)) &&
        (!byKind.value || row.example.kind === byKind.value) &&
        wanted.every((word) => row.text.includes(word)),
    );
    const right = matching.filter((row) => row.tuned === "right").length;
    find(".found").textContent = matching.length
      ? `${matching.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} examples, ` +
        `${right.toLocaleString("en")} answered right by the tuned model. A row shows base → tuned.`
      : "No example matches. Loosen a filter to see more.";
    list.replaceChildren();
    drawn = 0;
    draw(PAGE);
  }
  function draw(number) {
    list.append(...matching.slice(drawn, drawn + number).map(summarise));
    drawn = Math.min(matching.length, drawn + number);
    more.hidden = drawn === matching.length;
  }

  const SIGN = { right: "✓", wrong: "✗", unjudged: "?", absent: "·" };
  const sign = (word) => make("span", { class: word === "absent" ? "unjudged" : word, title: word, role: "img", "aria-label": word }, SIGN[word]);

  function summarise(row) {
    const { example } = row;
    const why = words((example.answers.tuned ?? example.answers.base)?.failure ?? "");
    const from = data.sets.length > 1 ? data.sets[example.set] : "";
    const marks = make("span", { class: "marks" }, sign(row.base), make("span", { class: "to", "aria-hidden": "true" }, "→"), sign(row.tuned));
    const details = make("details", { class: "example" },
      make("summary", {}, marks, make("span", { class: "asked" }, example.question), 
        make("span", { class: "why" }, why && make("b", {}, why), why && from ? " · " : "", from)));
    details.addEventListener("toggle", () => { if (details.open && !find(".inside", details)) details.append(inside(row)); });
    return make("div", { role: "listitem" }, details);
  }

  function inside(row) {
    const { example } = row;
    const { base, tuned } = example.answers;
    const cards = make("div", { class: "answers" },
      card("Gold", "", example.gold, null, example.columns, example.rows),
      base && card("Base", row.base, base.text, base, base.columns, base.rows, example.gold),
      tuned && card("Tuned", row.tuned, tuned.text, tuned, tuned.columns, tuned.rows, example.gold));
    const box = make("div", { class: "inside" }, cards);
    const turns = example.prompt.map(([role, at]) => [role, data.texts[at]])
      .filter(([role, text], i, all) => !(i === all.length - 1 && role === "user" && text === example.question));
    for (const [role, text] of turns)
      box.append(make("details", { class: "fold" }, make("summary", {}, role === "system" ? "What the model was given: schema and instruction" : `Turn: ${role}`), make("pre", {}, text)));
    box.append(make("p", { class: "fine" }, `${data.sets[example.set]}${example.kind ? " · " + words(example.kind) : ""} · `, make("code", {}, example.id)));
    return box;
  }

  function card(title, word, text, answer, columns, cells, gold) {
    const head = make("h4", {}, title, word && word !== "absent" ? make("span", { class: word }, `${SIGN[word]} ${word === "unjudged" ? "not judged" : word}`) : null);
    const extra = word === "wrong" ? differing(gold, text) : null;
    const box = make("div", { class: "answer" }, head, text ? coloured(text, extra) : make("p", { class: "fine" }, "empty answer"));
    if (Array.isArray(cells)) box.append(table(columns, cells));
    if (answer) {
      const said = [answer.failure && words(answer.failure), answer.note].filter(Boolean).join(": ");
      if (said) box.append(make("p", { class: "note" }, said));
      if (answer.stopped === false) box.append(make("p", { class: "note" }, "Cut off at the length limit: no end token."));
      for (const [name, value] of answer.more) box.append(make("p", { class: "note" }, `${name}: ${value}`));
      if (answer.raw !== answer.text) box.append(make("details", { class: "fold" }, make("summary", {}, "Whole completion"), make("pre", {}, answer.raw)));
    }
    return box;
  }

  function table(columns, cells) {
    if (!cells.length) return make("div", { class: "result" }, make("p", { class: "fine" }, "no rows"));
    const cell = (value) => value === null ? make("td", { class: "null" }, "null")
      : make("td", typeof value === "number" ? { class: "n" } : {}, typeof value === "object" ? JSON.stringify(value) : String(value));
    const body = make("tbody", {}, ...cells.map((line) => make("tr", {}, ...(Array.isArray(line) ? line : [line]).map(cell))));
    const numeric = (i) => cells.every((line) => Array.isArray(line) && (line[i] === null || typeof line[i] === "number"));
    const head = Array.isArray(columns) ? make("thead", {}, make("tr", {},
      ...columns.map((name, i) => make("th", numeric(i) ? { scope: "col", class: "n" } : { scope: "col" }, String(name))))) : null;
    return make("div", { class: "result", tabindex: "0", role: "region", "aria-label": "Result rows" }, make("table", {}, head, body));
  }

  // --- SQL: colours, and what an answer has that the gold has not --------------------------------------------------

  const PIECES = /'(?:[^']|'')*'?|"[^"]*"?|\w+(?:\.\d+)?|\s+|[<>=!|:]+|./gsu;
  const KEYWORDS = new Set(("select from where join left right full inner outer cross on using group by having order limit offset " +
    "distinct as and or not in is null like ilike between exists case when then else end union all except intersect with asc desc " +
    "over partition filter interval date true false cast extract").split(" "));
  const pieces = (text) => text.match(PIECES) ?? [];

  function coloured(text, extra) {
    const box = make("pre", {});
    const isSql = /^\s*(select|with)\b/i.test(text);
    pieces(text).forEach((piece, i) => {
      const kind = !isSql ? "" : KEYWORDS.has(piece.toLowerCase()) ? "kw" : piece[0] === "'" ? "str" : /^\d/.test(piece) ? "num" : "";
      const marked = [kind, extra?.has(i) ? "extra" : ""].filter(Boolean).join(" ");
      box.append(marked ? make("span", { class: marked }, piece) : piece);
    });
    return box;
  }

  // Indices of the pieces of `text` outside a longest common subsequence with `gold`.
  function differing(gold, text) {
    const solid = (all) => all.map((piece, i) => [piece.toLowerCase(), i]).filter(([piece]) => piece.trim());
    const a = solid(pieces(gold ?? ""));
    const b = solid(pieces(text ?? ""));
    if (!a.length || a.length * b.length > 250000) return null;
    const width = b.length + 1;
    const best = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i * width + j] = a[i][0] === b[j][0] ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    const extra = new Set(b.map(([, at]) => at));
    for (let i = 0, j = 0; i < a.length && j < b.length; )
      if (a[i][0] === b[j][0]) { extra.delete(b[j][1]); i++; j++; }
      else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
      else j++;
    return extra;
  }

  // --- filters ----------------------------------------------------------------------------------------------------

  for (const control of [search, bySet, byOutcome, byFailure, byKind]) control.addEventListener("input", apply);
  find(".filters").addEventListener("submit", (event) => event.preventDefault());
  find("button", more).addEventListener("click", () => draw(200));
  for (const link of document.querySelectorAll("a[data-failure]"))
    link.addEventListener("click", () => {
      search.value = byOutcome.value = byKind.value = "";
      bySet.value = data.sets.length > 1 ? link.dataset.set : "";
      byFailure.value = link.dataset.failure;
      apply();
    });
  apply();
})();
