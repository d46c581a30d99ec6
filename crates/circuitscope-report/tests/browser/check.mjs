// Opens pages in a real browser and fails on what a reader would trip over.
//
//   node check.mjs [--axe axe.min.js] [--shots FOLDER] [--chromium PATH] PAGE.html…
//
// Needs node 18 and chromium, nothing else: it speaks the DevTools protocol over a pipe.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const options = { axe: null, shots: null, chromium: "/usr/bin/chromium" };
const pages = [];
const given = process.argv.slice(2);
while (given.length > 0) {
  const next = given.shift();
  if (next.startsWith("--")) options[next.slice(2)] = given.shift();
  else pages.push(next);
}
if (pages.length === 0) {
  console.error("no page given");
  process.exit(2);
}

// Height of a part of a screenshot, in pixels.
const PART = 1500;

class Browser {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), "page-check-"));
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
    flags.push("--no-first-run", `--user-data-dir=${this.profile}`, "--remote-debugging-pipe", "about:blank");
    const stdio = ["ignore", "ignore", "ignore", "pipe", "pipe"];
    this.process = spawn(options.chromium, flags, { stdio });
    this.waiting = new Map();
    this.listeners = [];
    this.last = 0;
    let rest = "";
    this.process.stdio[4].setEncoding("utf8");
    this.process.stdio[4].on("data", (chunk) => {
      const messages = (rest + chunk).split("\0");
      rest = messages.pop();
      for (const message of messages) this.receive(JSON.parse(message));
    });
    this.process.on("exit", (code) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the browser ended (${code})`));
    });
  }

  receive(message) {
    const waiting = this.waiting.get(message.id);
    if (waiting) {
      this.waiting.delete(message.id);
      if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`));
      else waiting.resolve(message.result);
    } else {
      for (const listener of this.listeners) listener(message);
    }
  }

  send(method, params = {}, sessionId = undefined) {
    this.last += 1;
    const id = this.last;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, method }));
  }

  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    await this.send("Browser.close").catch(() => {});
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Tab {
  static async open(browser, path, { script = true, width = 1300, dark = false } = {}) {
    const tab = new Tab();
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    Object.assign(tab, { browser, targetId, sessionId, errors: [] });
    let loaded;
    const load = new Promise((resolve) => (loaded = resolve));
    tab.listener = (message) => {
      if (message.sessionId !== sessionId) return;
      const { method, params } = message;
      if (method === "Page.loadEventFired") loaded();
      if (method === "Runtime.exceptionThrown") {
        const details = params.exceptionDetails;
        tab.errors.push(details.exception?.description ?? details.text);
      }
      if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) {
        tab.errors.push(params.args.map((arg) => arg.value ?? arg.description).join(" "));
      }
      if (method === "Log.entryAdded" && params.entry.level === "error") tab.errors.push(params.entry.text);
    };
    browser.listeners.push(tab.listener);
    for (const domain of ["Page", "Runtime", "Log"]) await tab.send(`${domain}.enable`);
    await tab.send("Emulation.setScriptExecutionDisabled", { value: !script });
    await tab.look({ width, dark });
    await tab.send("Page.navigate", { url: pathToFileURL(resolve(path)).href });
    await load;
    return tab;
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  async look({ width, dark }) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  async run(expression) {
    const params = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", params);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async key(key, code, text) {
    const params = { key, code: key, windowsVirtualKeyCode: code, text };
    await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", ...params });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...params });
  }

  async click(x, y) {
    const params = { x, y, button: "left", clickCount: 1 };
    await this.send("Input.dispatchMouseEvent", { type: "mousePressed", ...params });
    await this.send("Input.dispatchMouseEvent", { type: "mouseReleased", ...params });
  }

  // The page from its top, cut into parts that can be looked at.
  async shoot(file) {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    const { width, height } = cssContentSize;
    mkdirSync(dirname(file), { recursive: true });
    for (let part = 0; part * PART < height && part < 8; part += 1) {
      const y = part * PART;
      const clip = { x: 0, y, width, height: Math.min(PART, height - y), scale: 1 };
      const shot = await this.send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: true });
      writeFileSync(file.replace(/\.png$/, `-${part + 1}.png`), Buffer.from(shot.data, "base64"));
    }
  }

  async close() {
    this.browser.listeners = this.browser.listeners.filter((other) => other !== this.listener);
    await this.browser.send("Target.closeTarget", { targetId: this.targetId });
  }
}

let failures = 0;
const check = (good, what) => {
  if (!good) failures += 1;
  console.log(`${good ? "ok" : "FAILED"}  ${what}`);
};

// The card that a link in the graph leads to: open, and on the screen.
const CARD = (id) => `(() => {
  const card = document.getElementById(${JSON.stringify(id)});
  const box = card.getBoundingClientRect();
  return card.closest("details").open && box.height > 20 && box.top < innerHeight && box.bottom > 0;
})()`;
const CLOSED = `document.querySelectorAll("details.card").forEach((card) => { card.open = false; })`;
const OPEN = `document.querySelectorAll("details").forEach((details) => { details.open = true; })`;

async function graph(tab, name) {
  const nodes = await tab.run(`[...document.querySelectorAll("a.node")].map((node) => node.getAttribute("href").slice(1))`);
  if (nodes.length === 0) return;
  for (const [at, id] of nodes.entries()) {
    await tab.run(CLOSED);
    const place = await tab.run(`(() => {
      const node = document.querySelectorAll("a.node")[${at}];
      node.scrollIntoView({ block: "center" });
      const box = node.getBoundingClientRect();
      return [box.left + box.width / 2, box.top + box.height / 2];
    })()`);
    await tab.click(...place);
    const opened = await tab.run(CARD(id));
    if (!opened || at === 0) check(opened, `${name}: a click on a head opens ${id}`);
  }
  const id = nodes.at(-1);
  await tab.run(CLOSED);
  await tab.run(`document.querySelector('a.node[href="#${id}"]').focus()`);
  await tab.key("Enter", 13, "\r");
  await new Promise((resolve) => setTimeout(resolve, 50));
  check(await tab.run(CARD(id)), `${name}: Enter on a head opens ${id}`);
  await tab.run(`history.replaceState(null, "", location.pathname); document.querySelector("nav a").focus()`);
  let reached = false;
  for (let step = 0; step < 60 && !reached; step += 1) {
    await tab.key("Tab", 9);
    reached = await tab.run(`document.activeElement.classList.contains("node")`);
  }
  check(reached, `${name}: Tab reaches heads of the graph`);
  const zoomed = await tab.run(`(() => {
    const svg = document.querySelector("figure.graph > svg");
    const before = svg.getAttribute("viewBox");
    document.querySelector("[data-zoom=in]").click();
    const after = svg.getAttribute("viewBox");
    document.querySelector("[data-zoom=reset]").click();
    return before !== after && svg.viewBox.baseVal.x === 0;
  })()`);
  check(zoomed, `${name}: the graph zooms`);
}

async function sorting(tab, name) {
  // A comparison has tables that are in order already; other pages without a circuit need none that sort.
  if (await tab.run(`document.querySelector("#beside") !== null`)) return;
  if (await tab.run(`document.querySelector("table.sortable, figure.graph") === null`)) return;
  const sorted = await tab.run(`(() => {
    const rows = () => [...document.querySelectorAll("table.sortable tbody tr")];
    const before = rows().length;
    document.querySelectorAll("table.sortable thead button")[1].click();
    const names = rows().map((row) => row.cells[1].textContent);
    const places = names.map((name) => name.match(/L(\\d+)H(\\d+)/).slice(1).map(Number));
    const up = places.every(([layer, head], at) => at === 0 ||
      places[at - 1][0] < layer || (places[at - 1][0] === layer && places[at - 1][1] < head));
    document.querySelectorAll("table.sortable thead button")[0].click();
    return up && rows().length === before;
  })()`);
  check(sorted, `${name}: tables sort`);
}

// Numbers of cards as text or titles, the same whether or not the script ran.
const NUMBERS = `[...document.querySelectorAll("details.card article")].map((card) => {
  const titles = [...card.querySelectorAll("[title]")].map((one) => one.getAttribute("title"));
  return (card.textContent + titles.join(" ")).match(/-?\\d*\\.\\d+/g)?.length ?? 0;
})`;

async function withoutScript(browser, page, name, numbers) {
  const source = readFileSync(page, "utf8").replace(/<script>[\s\S]*<\/script>/, "");
  const folder = mkdtempSync(join(tmpdir(), "page-plain-"));
  const plain = join(folder, "report.html");
  writeFileSync(plain, source);
  const tab = await Tab.open(browser, plain);
  const found = await tab.run(NUMBERS);
  check(JSON.stringify(found) === JSON.stringify(numbers), `${name}: without script all numbers of cards are there`);
  const controls = await tab.run(`[...document.querySelectorAll("button")].filter((one) => one.offsetParent).length`);
  check(controls === 0, `${name}: without script no button is shown`);
  if (numbers.length > 0) {
    const id = await tab.run(`document.querySelector("article").id`);
    await tab.run(`location.hash = ${JSON.stringify(id)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    check(await tab.run(CARD(id)), `${name}: without script a link opens a card`);
  }
  await tab.close();
  rmSync(folder, { recursive: true, force: true });
}

async function axe(tab, name, what) {
  if (!options.axe) return;
  await tab.run(`${readFileSync(options.axe, "utf8")}; 0`);
  const found = await tab.run(`axe.run(document, { resultTypes: ["violations"] }).then((result) =>
    result.violations.map(({ id, impact, help, nodes }) =>
      ({ id, impact, help, at: nodes.slice(0, 3).map((node) => node.html.slice(0, 160)), all: nodes.length })))`);
  for (const violation of found) {
    console.log(`      ${violation.impact}: ${violation.id}: ${violation.help} (${violation.all})`);
    for (const at of violation.at) console.log(`        ${at}`);
  }
  const grave = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  check(grave.length === 0, `${name}: axe finds nothing serious, ${what}`);
}

// What is wider than the paper, in the layout of print.
async function print(tab, name) {
  await tab.send("Emulation.setDeviceMetricsOverride", { width: 703, height: 1000, deviceScaleFactor: 1, mobile: false });
  await tab.send("Emulation.setEmulatedMedia", { media: "print" });
  await tab.run(`document.querySelectorAll("details").forEach((details) => { details.open = false; })`);
  const shown = await tab.run(`[...document.querySelectorAll("details.card article")].every((card) => card.checkVisibility())`);
  check(shown, `${name}: closed cards are printed too`);
  const wide = await tab.run(`[...document.querySelectorAll("body *")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !one.closest(".hidden");
  }).slice(0, 3).map((one) => one.outerHTML.slice(0, 90))`);
  check(wide.length === 0, `${name}: nothing is cut in print ${wide.join(" | ")}`);
  if (options.shots) await tab.shoot(join(options.shots, `${name}-print.png`));
  await tab.send("Emulation.setEmulatedMedia", { media: "" });
}

const browser = new Browser();
try {
  for (const page of pages) {
    const name = basename(dirname(resolve(page)));
    const tab = await Tab.open(browser, page);
    await graph(tab, name);
    await sorting(tab, name);
    const numbers = await tab.run(NUMBERS);
    await withoutScript(browser, page, name, numbers);
    await tab.send("Input.dispatchMouseEvent", { type: "mouseMoved", x: 1, y: 1 });
    await tab.run(`document.activeElement.blur()`);
    for (const width of [700, 1300]) {
      for (const dark of [false, true]) {
        await tab.look({ width, dark });
        const how = `${width} px, ${dark ? "dark" : "light"}`;
        const file = (what) => join(options.shots, `${name}-${width}-${dark ? "dark" : "light"}${what}.png`);
        await tab.run(CLOSED);
        if (options.shots) await tab.shoot(file(""));
        await tab.run(OPEN);
        const over = await tab.run(`document.documentElement.scrollWidth - innerWidth`);
        check(over <= 0, `${name}: no overflow at ${how}`);
        if (options.shots && (width === 1300) !== dark) await tab.shoot(file("-open"));
        if (width === 1300) await axe(tab, name, how);
      }
    }
    await print(tab, name);
    check(tab.errors.length === 0, `${name}: no error in the console ${tab.errors.join(" | ")}`);
    await tab.close();
  }
} finally {
  await browser.close();
}
console.log(failures === 0 ? "all is well" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
