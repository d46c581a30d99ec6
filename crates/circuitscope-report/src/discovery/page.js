"use strict";
// The page is whole without this: it opens cards, zooms the graph, sorts tables and copies the command.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Cards: a link to a card opens it and puts the focus there.
  const open = (hash, focus) => {
    if (!/^#card-L\d+H\d+$/.test(hash)) return;
    const card = document.getElementById(hash.slice(1));
    const details = card && card.closest("details");
    if (!details) return;
    details.open = true;
    const summary = details.querySelector("summary");
    if (focus) summary.focus({ preventScroll: true });
    details.scrollIntoView({ block: "start" });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#card-"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    const hash = link.getAttribute("href");
    if (location.hash !== hash) history.pushState(null, "", hash);
    open(hash, true);
  });
  addEventListener("hashchange", () => open(location.hash, true));
  addEventListener("popstate", () => open(location.hash, false));
  open(location.hash, false);
  for (const button of all("[data-cards]")) {
    button.parentElement.hidden = false;
    button.addEventListener("click", () => {
      for (const card of all("details.card")) card.open = button.dataset.cards === "open";
    });
  }
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const details of all("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });

  // The graph: zoom about a point, drag when zoomed, light up what a node is joined to.
  for (const figure of all("figure.graph")) {
    const svg = figure.querySelector(":scope > svg");
    const whole = svg.viewBox.baseVal;
    const [width, height] = [whole.width, whole.height];
    let view = { x: 0, y: 0, zoom: 1 };
    const show = () => {
      const [w, h] = [width / view.zoom, height / view.zoom];
      view.x = Math.min(Math.max(view.x, 0), width - w);
      view.y = Math.min(Math.max(view.y, 0), height - h);
      svg.setAttribute("viewBox", `${view.x} ${view.y} ${w} ${h}`);
      figure.classList.toggle("zoomed", view.zoom > 1);
    };
    const zoom = (factor, across = 0.5, down = 0.5) => {
      const next = Math.min(Math.max(view.zoom * factor, 1), 8);
      view.x += (across * width) / view.zoom - (across * width) / next;
      view.y += (down * height) / view.zoom - (down * height) / next;
      view.zoom = next;
      show();
    };
    const buttons = figure.querySelector(".zoom");
    buttons.hidden = false;
    buttons.addEventListener("click", (event) => {
      const how = event.target.dataset.zoom;
      if (how === "in") zoom(1.5);
      if (how === "out") zoom(1 / 1.5);
      if (how === "reset") {
        view = { x: 0, y: 0, zoom: 1 };
        show();
      }
    });
    svg.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        const box = svg.getBoundingClientRect();
        const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        zoom(Math.exp(-event.deltaY / 300), ...at);
      },
      { passive: false },
    );
    let from = null;
    svg.addEventListener("pointerdown", (event) => {
      if (view.zoom > 1 && event.button === 0 && !event.target.closest("a")) from = event;
    });
    addEventListener("pointermove", (event) => {
      if (!from) return;
      const box = svg.getBoundingClientRect();
      view.x -= ((event.clientX - from.clientX) / box.width) * (width / view.zoom);
      view.y -= ((event.clientY - from.clientY) / box.height) * (height / view.zoom);
      from = event;
      show();
    });
    addEventListener("pointerup", () => (from = null));

    const edges = all(".edge", svg);
    const light = (node) => {
      svg.classList.toggle("lit", node !== null);
      for (const edge of edges) {
        edge.classList.toggle("on", node !== null && edge.dataset.ends.split(" ").includes(node));
      }
    };
    for (const node of all(".node", svg)) {
      // A listener of focus would make nodes without a link reachable by keyboard.
      const link = node.localName === "a";
      for (const on of link ? ["pointerenter", "focus"] : ["pointerenter"]) {
        node.addEventListener(on, () => light(node.dataset.node));
      }
      for (const off of link ? ["pointerleave", "blur"] : ["pointerleave"]) {
        node.addEventListener(off, () => light(null));
      }
    }
  }

  // Tables of all heads: a click on a heading sorts the rows of both parts together.
  const tables = all("table.sortable");
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent;
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? -Infinity : number;
  };
  const sort = (column, up) => {
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
    const sizes = tables.map((table) => table.tBodies[0].rows.length);
    const values = new Map(rows.map((row) => [row, value(row, column)]));
    const compare = (a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      return x === y ? 0 : x < y === up ? -1 : 1;
    };
    rows.sort(compare);
    tables.forEach((table, at) => {
      table.tBodies[0].append(...rows.splice(0, sizes[at]));
      table.querySelectorAll("thead th").forEach((head, index) => {
        if (index === column) head.setAttribute("aria-sort", up ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    });
  };
  for (const table of tables) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const name = button.textContent;
        const first = name === "rank" || name === "head";
        const sorted = head.getAttribute("aria-sort");
        sort(column, sorted ? sorted === "descending" : first);
      });
    });
  }

  // The command.
  for (const button of all("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not copied";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
})();
