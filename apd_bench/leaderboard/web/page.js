"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const all = (selector, part = document) => [...part.querySelectorAll(selector)];
  const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
  const state = { board: data.first, sort: "", show: "", q: "", pick: [], all: false };
  const start = { ...state };
  if (!data.boards.length) return;

  // ---- theme: what the system says, unless the reader chose
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => { try { return value ? window.localStorage.setItem("apd-bench-theme", value) : window.localStorage.getItem("apd-bench-theme"); } catch { return null; } };
  const setTheme = (wanted) => { root.classList.remove("dark", "light"); root.classList.add(wanted); };
  if (stored()) setTheme(stored());

  // ---- the view in the address: #board=1&sort=worst,up&show=clean&q=ap&pick=apd,fap&all=1
  const write = () => {
    const view = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      const text = name === "pick" ? JSON.stringify(value) : String(value);
      if (text !== (name === "pick" ? "[]" : String(start[name]))) view.set(name, text);
    }
    const text = String(view);
    window.history.replaceState(null, "", text ? `#${text}` : window.location.pathname + window.location.search);
  };
  const read = () => {
    const hash = window.location.hash.slice(1);
    if (!hash.includes("=")) return;
    const view = new URLSearchParams(hash);
    Object.assign(state, start, { sort: view.get("sort") || "", show: view.get("show") || "", q: view.get("q") || "", all: view.get("all") === "true" });
    const asked = Number(view.get("board") ?? data.first);
    state.board = data.boards[asked] ? asked : data.first;
    try { state.pick = JSON.parse(view.get("pick") || "[]").map(String).slice(-2); } catch { state.pick = []; }
  };

  // ---- what the state looks like
  const sortRows = (board) => {
    const [key, way] = state.sort.split(",");
    const head = all("thead th", board).find((th) => th.dataset.key === key);
    const body = board.querySelector("table.data tbody");
    const value = (row) => {
      const text = row.cells[head.cellIndex].dataset.order;
      return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return way === "down" ? -order : order;
    };
    const rows = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
    if (head) rows.sort((a, b) => a.classList.contains("incomplete") - b.classList.contains("incomplete") || compare(a, b));
    body.append(...rows);
    all("thead th", board).forEach((th) => {
      if (th === head) th.setAttribute("aria-sort", way === "down" ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
  };
  const comparison = () => {
    const part = document.getElementById("compare");
    const { methods, typed, columns, datasets, means, sets, pairs } = data.boards[state.board];
    const [first, second] = state.pick.map((name) => methods.indexOf(name));
    part.hidden = !(first >= 0 && second >= 0);
    part.replaceChildren();
    if (part.hidden) return;
    const signed = (number) => (number > 0 ? "+" : "") + number.toFixed(1);
    const line = (part_, tag, cells) => part_.insertRow().append(...cells.map((text, place) => make(place && tag === "td" ? "td" : "th", text, { scope: tag === "td" ? "row" : "col" })));
    const grid = (caption, head, names, values, edges) => {
      const table = document.createElement("table");
      table.append(make("caption", caption));
      line(table.createTHead(), "th", [head, methods[first], methods[second], difference, ...(edges ? [range] : [])]);
      const body = table.createTBody();
      names.forEach((name, place) => {
        const [one, two] = [values[first][place], values[second][place]];
        line(body, "td", [name, one.toFixed(1), two.toFixed(1), signed(one - two), ...(edges ? [edges(name)] : [])]);
      });
      return table;
    };
    const [dataset, column, , , difference, range] = data.heads;
    const interval = (name) => (name === "worst" ? pairs[first][second].map(signed).join(" to ") : "");
    const more = make("p", "Tests and single samples: ");
    more.append(make("code", `apd-bench compare ${typed[first]} ${typed[second]}`));
    part.append(grid("mean over the sets, percent", column, columns, means, interval), grid("worst, percent", dataset, datasets, sets), more);
  };
  const show = () => {
    all(".of-board").forEach((part) => { part.hidden = !part.dataset.board.split(" ").includes(String(state.board)); });
    all("button[data-facet]").forEach((button) => button.setAttribute("aria-pressed", data.facets[button.dataset.facet][state.board] === button.dataset.value));
    all("button[data-kind]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.kind === state.show));
    document.getElementById("more").setAttribute("aria-pressed", state.all);
    document.getElementById("find").value = state.q;
    all(".board").forEach((board) => {
      board.classList.toggle("all", state.all);
      sortRows(board);
      all("tbody tr[data-method]", board).forEach((row) => {
        row.hidden = (state.show && row.dataset.kind !== state.show) || !row.textContent.toLowerCase().includes(state.q.toLowerCase());
        row.querySelector(".pick input").checked = state.pick.includes(row.dataset.method);
      });
    });
    all("#charts .chart").forEach((chart) => {
      chart.classList.toggle("chosen", state.pick.length > 0);
      all(".series", chart).forEach((item) => {
        const picked = state.pick.includes(item.dataset.method);
        item.classList.toggle("picked", picked);
        item.setAttribute("aria-pressed", picked);
      });
    });
    comparison();
  };
  const change = (changes) => { Object.assign(state, changes); show(); write(); };
  const pick = (name) => change({ pick: state.pick.includes(name) ? state.pick.filter((one) => one !== name) : [...state.pick, name].slice(-2) });

  // ---- heads: a button that sorts, best first, and says what the column is
  const tip = document.getElementById("tip");
  const explain = (button, text) => {
    const open = () => {
      tip.textContent = text;
      tip.hidden = false;
      const box = button.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(box.left, root.clientWidth - tip.offsetWidth - 8)) + window.scrollX}px`;
      tip.style.top = `${box.bottom + 6 + window.scrollY}px`;
    };
    const close = () => { tip.hidden = true; };
    button.setAttribute("aria-description", text);
    [["mouseenter", open], ["focus", open], ["mouseleave", close], ["blur", close]].forEach(([event, act]) => button.addEventListener(event, act));
    button.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  };
  all(".board").forEach((board) => {
    all("tbody tr[data-method]", board).forEach((row, place) => {
      row.dataset.place = place;
      const label = make("label", "", { className: "pick" });
      const box = make("input", "", { type: "checkbox" });
      box.addEventListener("change", () => pick(row.dataset.method));
      label.append(box, make("span", `compare ${row.dataset.method}`, { className: "hid" }));
      row.querySelector(".name").before(label);
    });
    all("table.data thead th", board).forEach((th) => {
      const button = make("button", th.textContent, { type: "button" });
      explain(button, th.title);
      th.removeAttribute("title");
      button.addEventListener("click", () => {
        const [key, way] = state.sort.split(",");
        const other = way === "up" ? "down" : "up";
        change({ sort: `${th.dataset.key},${key === th.dataset.key ? other : th.dataset.first}` });
      });
      th.replaceChildren(button);
    });
  });

  // ---- buttons
  all("button[data-facet]").forEach((button) => button.addEventListener("click", () => {
    const { facet, value } = button.dataset;
    const alike = (place) => Object.values(data.facets).filter((values) => values[place] === values[state.board]).length;
    const places = data.boards.map((_, place) => place).filter((place) => data.facets[facet][place] === value);
    change({ board: places.reduce((best, place) => (alike(place) > alike(best) ? place : best)) });
  }));
  all("button[data-kind]").forEach((button) => button.addEventListener("click", () => change({ show: button.dataset.kind })));
  document.getElementById("more").addEventListener("click", () => change({ all: !state.all }));
  document.getElementById("find").addEventListener("input", (event) => change({ q: event.target.value }));
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const isDark = root.classList.contains("dark") || (dark.matches && !root.classList.contains("light"));
    const next = isDark ? "light" : "dark";
    stored(next);
    setTheme(next);
  });
  const copy = (text, done) => { if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {}); };
  document.getElementById("link").addEventListener("click", () => {
    write();
    const shown = document.getElementById("copied");
    shown.textContent = "It is in the address bar.";
    copy(window.location.href, () => { shown.textContent = "Copied."; });
  });
  all("pre.copy").forEach((part) => {
    const text = part.textContent;
    const button = make("button", "copy", { type: "button" });
    button.addEventListener("click", () => copy(text, () => { button.textContent = "copied"; }));
    part.append(button);
  });
  all("#charts .series").forEach((item) => {
    item.setAttribute("tabindex", "0");
    item.setAttribute("role", "button");
    item.addEventListener("click", () => pick(item.dataset.method));
    item.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      pick(item.dataset.method);
    });
  });

  all(".live").forEach((part) => { part.hidden = false; });
  read();
  show();
  window.addEventListener("hashchange", () => { if (window.location.hash.includes("=")) { read(); show(); } });
  const place = document.getElementById(window.location.hash.slice(1));
  if (place) place.scrollIntoView();
})();
