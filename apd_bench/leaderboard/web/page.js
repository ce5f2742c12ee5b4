"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chooser = document.getElementById("board");
  const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f"];
  const shapes = ["circle", "triangle", "rect", "rectRot"];
  const named = { // writes the names beside the points of the scatter plot where there is room
    id: "named",
    afterDatasetsDraw(chart) {
      if (chart.canvas.id !== "scatter") return;
      const { ctx, chartArea } = chart;
      const taken = [];
      ctx.save();
      ctx.font = "11px system-ui, sans-serif";
      ctx.fillStyle = window.getComputedStyle(root).getPropertyValue("--ink").trim();
      ctx.textBaseline = "middle";
      chart.getSortedVisibleDatasetMetas().forEach((meta) => {
        const name = chart.data.datasets[meta.index].label;
        if (name.startsWith(" ")) return;
        const { x, y } = meta.data[0];
        const width = ctx.measureText(name).width;
        const places = [x + 8, x - 8 - width].flatMap((left) => [y, y - 9, y + 9].map((middle) => [left, middle - 6, left + width, middle + 6]));
        const free = places.find((box) => box[0] >= chartArea.left && box[2] <= chartArea.right
          && taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]));
        if (!free) return;
        taken.push(free, [x - 5, y - 5, x + 5, y + 5]);
        ctx.fillText(name, free[0], (free[1] + free[3]) / 2);
      });
      ctx.restore();
    },
  };
  const grids = new Map();
  let quiet = true; // while a view is being applied, nothing is written to the address
  const charts = [];
  const narrow = window.matchMedia("(max-width: 40rem)");
  const important = new Set(["rank", "method", "clean", "worst", "95 %"]); // what a phone shows first

  // ---- theme: what the system says, unless the reader chose
  const remember = (value) => { try { window.localStorage.setItem("apd-bench-theme", value); } catch { /* files may not store */ } };
  const remembered = () => { try { return window.localStorage.getItem("apd-bench-theme"); } catch { return null; } };
  const isDark = () => root.classList.contains("dark");
  const setTheme = (wanted) => {
    root.classList.toggle("dark", wanted === "dark");
    root.classList.toggle("light", wanted === "light");
    draw();
  };
  const systemTheme = () => (dark.matches ? "dark" : "light");

  // ---- the view in the address: #board=1&q=apd&sort=6,desc&hide=3,4
  const readView = () => {
    const hash = window.location.hash.slice(1);
    return hash.includes("=") ? new URLSearchParams(hash) : new URLSearchParams();
  };
  const writeView = () => {
    if (quiet) return;
    const number = chooser.value;
    const grid = grids.get(number);
    const view = new URLSearchParams({ board: number });
    if (grid.search()) view.set("q", grid.search());
    const order = grid.order()[0];
    if (order && (order[0] !== 0 || order[1] !== "asc")) view.set("sort", `${order[0]},${order[1]}`);
    const hidden = grid.columns().indexes().toArray().filter((index) => !grid.column(index).visible());
    if (hidden.join() !== unimportant(grid).join()) view.set("hide", hidden.join(","));
    window.history.replaceState(null, "", `#${view}`);
  };
  const unimportant = (grid) => grid.columns().indexes().toArray()
    .filter((index) => narrow.matches && !important.has(grid.column(index).header().textContent.trim()));
  const applyView = (view) => {
    quiet = true;
    const wanted = view.get("board") || "0";
    const number = data.boards[Number(wanted)] ? wanted : "0";
    chooser.value = number;
    show(number);
    const grid = grids.get(number);
    const columns = grid.columns().count();
    const hidden = new Set(view.has("hide") ? view.get("hide").split(",").filter((text) => text !== "").map(Number) : unimportant(grid));
    for (let index = 0; index < columns; index += 1) grid.column(index).visible(index === 1 || !hidden.has(index), false);
    grid.columns.adjust();
    const [place, direction] = (view.get("sort") || "0,asc").split(",");
    if (Number(place) >= 0 && Number(place) < columns) grid.order([Number(place), direction === "desc" ? "desc" : "asc"]);
    grid.search(view.get("q") || "").draw();
    document.querySelectorAll(`#board-${number} .tools input[data-column]`).forEach((box) => {
      box.checked = grid.column(Number(box.dataset.column)).visible();
    });
    window.setTimeout(() => { quiet = false; }, 0);
  };
  const show = (number) => {
    document.querySelectorAll(".of-board").forEach((part) => { part.hidden = part.dataset.board !== number; });
    draw();
  };

  // ---- tables
  const enhance = (part) => {
    const number = part.dataset.board;
    const grid = new DataTable(part.querySelector("table.data"), {
      paging: false, info: false, autoWidth: false, order: [[0, "asc"]], orderMulti: false,
      layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
      language: { search: "Filter", zeroRecords: "No row has this text" },
    });
    grids.set(number, grid);
    const choice = document.createElement("details");
    const legend = document.createElement("summary");
    legend.textContent = "Columns";
    choice.append(legend);
    grid.columns().every(function column(index) {
      if (index === 1) return;
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.dataset.column = String(index);
      box.addEventListener("change", () => { grid.column(index).visible(box.checked); writeView(); });
      label.append(box, ` ${this.header().textContent.trim()}`);
      choice.append(label);
    });
    part.querySelector(".tools").append(choice);
    grid.on("order search", () => { if (grids.size === data.boards.length && chooser.value === number) writeView(); });
  };

  // ---- charts
  const style = (name) => {
    const index = data.methods.indexOf(name);
    const round = Math.floor(index / palette.length);
    return { color: palette[index % palette.length], shape: shapes[(index + round) % shapes.length], dash: [[], [6, 3], [2, 2]][round % 3] };
  };
  const axis = (title, ink, line, more = {}) => ({
    title: { display: true, text: title, color: ink }, ticks: { color: ink }, grid: { color: line }, ...more,
  });
  const make = (id, config) => {
    const ink = window.getComputedStyle(root).getPropertyValue("--ink").trim();
    const line = window.getComputedStyle(root).getPropertyValue("--line").trim();
    const { x, y } = config.axes;
    charts.push(new Chart(document.getElementById(id), {
      type: config.type,
      data: { datasets: config.datasets },
      plugins: [named],
      options: {
        animation: false, maintainAspectRatio: false, responsive: true,
        scales: { x: axis(x, ink, line, { type: "linear", ...config.x }), y: axis(y, ink, line, { beginAtZero: true, suggestedMax: 5 }) },
        plugins: {
          legend: {
            labels: { color: ink, usePointStyle: true, boxHeight: 7, filter: (item) => !item.text.startsWith(" ") },
            onClick: (_event, item, legend) => toggle(legend.chart, item.datasetIndex),
          },
          tooltip: { filter: (item) => !item.dataset.label.startsWith(" "), callbacks: { label: config.label } },
        },
      },
    }));
  };
  const toggle = (chart, place) => { // a line and its band together
    const wanted = !chart.isDatasetVisible(place);
    chart.setDatasetVisibility(place, wanted);
    for (let next = place + 1; (chart.data.datasets[next] || { label: "x" }).label.startsWith(" "); next += 1) chart.setDatasetVisibility(next, wanted);
    bands(chart);
    chart.update();
  };
  const bands = (chart) => { // thirteen bands on top of each other say nothing
    const lines = chart.data.datasets.filter((set, place) => !set.label.startsWith(" ") && chart.isDatasetVisible(place));
    chart.data.datasets.forEach((set) => { if (set.band) set.fill = lines.length <= 4 ? "-1" : false; });
  };
  const scatter = (board) => {
    const datasets = board.points.map((point) => ({
      label: point.method, data: [point], backgroundColor: style(point.method).color,
      borderColor: style(point.method).color, pointStyle: style(point.method).shape, pointRadius: 6,
    }));
    const front = board.points.filter((point) => board.front.includes(point.method)).sort((a, b) => a.x - b.x);
    datasets.push({ label: " front", data: front, showLine: true, pointRadius: 0, borderColor: "#888888", borderDash: [5, 4] });
    make("scatter", {
      type: "scatter", datasets, axes: { x: "clean accuracy, %", y: "worst case, %" }, x: { grace: "5%" },
      label: (item) => `${item.dataset.label}: clean ${item.parsed.x} %, worst ${item.parsed.y} %`,
    });
  };
  const curve = (id, lines, title, order) => {
    const datasets = [];
    const place = (method) => (order.includes(method) ? order.indexOf(method) : order.length);
    for (const [method, points] of Object.entries(lines).sort((a, b) => place(a[0]) - place(b[0]))) {
      const { color, shape, dash } = style(method);
      const edge = (place) => points.filter((point) => point[place] !== null).map((point) => ({ x: point[0], y: point[place] }));
      datasets.push({ label: method, data: points.map((point) => ({ x: point[0], y: point[1] })), borderColor: color, backgroundColor: color, borderDash: dash, borderWidth: 2, pointStyle: shape, pointRadius: 4, showLine: true, edges: points.map((point) => (point[2] === null ? "" : ` (${point[2]} to ${point[3]})`)) });
      datasets.push({ label: " low", data: edge(2), pointRadius: 0, showLine: true, borderWidth: 0 });
      datasets.push({ label: " high", data: edge(3), pointRadius: 0, showLine: true, borderWidth: 0, band: true, fill: "-1", backgroundColor: `${color}22` });
    }
    make(id, { type: "scatter", datasets, axes: { x: title, y: "worst case, %" }, x: { beginAtZero: id === "eps" }, label: (item) => `${item.dataset.label} at ${item.parsed.x}: ${item.parsed.y} %${item.dataset.edges[item.dataIndex]}` });
    const chart = charts[charts.length - 1];
    bands(chart);
    chart.update();
  };
  function draw() {
    charts.splice(0).forEach((chart) => chart.destroy());
    const number = chooser.value;
    const board = data.boards[Number(number)];
    if (!board) return;
    scatter(board);
    const order = board.points.map((point) => point.method); // as in the table: best first
    curve("eps", data.curves[`eps${number}`] || {}, "eps × 255", order);
    const shots = data.curves[`shots${number}`];
    document.getElementById("shots-figure").hidden = !shots;
    if (shots) curve("shots", shots, "shots per class", order);
  }

  // ---- start
  if (!data.boards.length) return;
  document.getElementById("chooser").hidden = false;
  const view = readView();
  document.querySelectorAll(".board").forEach(enhance);
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => { const next = isDark() ? "light" : "dark"; remember(next); setTheme(next); });
  dark.addEventListener("change", () => { if (!remembered()) setTheme(systemTheme()); });
  root.classList.add(remembered() || systemTheme());
  applyView(view);
  const place = document.getElementById(window.location.hash.slice(1));
  if (place) place.scrollIntoView();
  chooser.addEventListener("change", () => { show(chooser.value); writeView(); });
  document.getElementById("link").addEventListener("click", () => {
    writeView();
    const done = document.getElementById("copied");
    const shown = () => { done.textContent = "The link is in the address bar."; };
    if (navigator.clipboard) navigator.clipboard.writeText(window.location.href).then(() => { done.textContent = "Copied."; }, shown);
    else shown();
  });
  window.addEventListener("hashchange", () => { if (window.location.hash.includes("=")) applyView(readView()); });
  let before = null;
  window.addEventListener("beforeprint", () => { before = isDark() ? "dark" : "light"; setTheme("light"); });
  window.addEventListener("afterprint", () => { if (before) setTheme(before); });
})();
