// Measures how long after a click each screen can be used, on an existing store (tests/console/millions).
import assert from "node:assert/strict";
import { join } from "node:path";
import { visit } from "./page.mjs";
import { browse, serve } from "./service.mjs";

const TIMES = 5;
/** A slower response feels like waiting. */
const GOAL_MS = 300;
const traces = process.env.TRACES;

const service = await serve({ data: process.env.DATA });
const browser = await browse();
const get = async (path) => (await fetch(`${service.url}/${path}`)).json();
const total = Number((await fetch(`${service.url}/widgets?limit=1`, { headers: { Prefer: "count=exact" } })).headers.get("content-range").split("/")[1]);

/** Finds a widget in the middle of the registry with associations, and one of its peers. */
const [first] = await get("widgets?limit=1&select=serial_number");
const [last] = await get("widgets?limit=1&select=serial_number&order=serial_number.desc");
const middle = between(first.serial_number, last.serial_number);
const page = await get(`widgets?serial_number=gte.${encodeURIComponent(middle)}&limit=100`);
const within = async ({ serial_number }, depth) => (await get(`widgets/${encodeURIComponent(serial_number)}/neighbourhood?depth=${depth}&widgets_max=150`)).widgets.length;
let subject;
let reached = 0;
for (const widget of page.filter(({ slots }) => slots.length === 3 && slots.every(({ peer }) => peer))) {
  const [near, far] = [await within(widget, 2), await within(widget, 10)];
  if (far > near && far > reached) [subject, reached] = [widget.serial_number, far];
}
assert.ok(subject, "there must be a widget whose neighbourhood grows beyond two associations");
const peer = page.find(({ serial_number }) => serial_number === subject).slots[0].peer;

/** Returns a text that sorts between two others. */
function between(one, other) {
  let common = 0;
  while (one[common] === other[common]) common += 1;
  const [low, high] = [one.charCodeAt(common) || 0, other.charCodeAt(common)];
  return one.slice(0, common) + String.fromCharCode(Math.round((low + high) / 2));
}

const hash = (path) => ({ hash: `#/${path}` });
const list = (query) => hash(`widgets?${new URLSearchParams(query)}`);
/**
 * Each step: a name, the screen before, what to click, and the sign that the new screen can be used. A search that still
 * runs can be used as well, because it can be stopped.
 */
const FOUND = "tbody tr, .nothing button, .table .nothing";
const STEPS = [
  ["overview", hash("nowhere"), { link: "#/" }, ".health"],
  ["widgets, the first page", hash("nowhere"), { link: "#/widgets" }, "tbody tr"],
  ["widgets, the next page", hash("widgets"), { button: "Next" }, "tbody tr", "page"],
  ["widgets, a page from the middle", hash("nowhere"), list({ serial_number: `gte.${middle}` }), "tbody tr"],
  ["widgets, by the beginning", hash("nowhere"), list([["serial_number", `gte.${subject.slice(0, -2)}`], ["serial_number", `lt.${subject}z`]]), FOUND],
  ["widgets, with a free slot", hash("nowhere"), list({ slots: `cs.[{"port":"R","peer":null}]` }), FOUND],
  ["widgets, associated with one", hash("nowhere"), list({ slots: `cs.${JSON.stringify([{ peer: subject }])}` }), FOUND],
  ["widgets, by a part of the name", hash("nowhere"), list({ name: "ilike.*1*" }), FOUND],
  ["widgets, by a name that none has", hash("nowhere"), list({ name: "eq.no such name" }), FOUND],
  ["a widget", list({ serial_number: `eq.${subject}` }), { link: `#/widget/${encodeURIComponent(subject)}` }, ".slot-rows"],
  ["a widget, its removal asked for", hash(`widget/${encodeURIComponent(subject)}`), { button: "Remove this widget…" }, "form.card"],
  ["neighbourhood", hash(`widget/${encodeURIComponent(subject)}`), { link: `#/near/${encodeURIComponent(subject)}` }, ".node"],
  ["neighbourhood, ten associations away", hash(`near/${encodeURIComponent(subject)}`), { range: "10" }, "main > p[role=status]", "status"],
  ["neighbourhood, walked on", hash(`near/${encodeURIComponent(subject)}`), { node: peer }, `.node.centre[aria-label="${peer}"]`],
  ["operations", hash("nowhere"), { link: "#/operations" }, "form"],
  ["changes", hash("nowhere"), { link: "#/changes" }, ".changes, main .nothing"],
  ["changes of a widget", hash("nowhere"), hash(`changes?widget_sn=${encodeURIComponent(subject)}`), ".changes, main .nothing"],
];

/** Runs in the page: does the step, and returns how long after it the page can be used, in milliseconds. */
function act({ what, sign, fresh }) {
  const byText = (text) => [...document.querySelectorAll("button")].find((button) => button.textContent === text);
  const before = fresh && document.querySelector(fresh === "page" ? "tbody" : "main > p[role=status]").textContent;
  const began = performance.now();
  if (what.hash) location.hash = what.hash;
  else if (what.link) document.querySelector(`a[href="${CSS.escape(what.link)}"], a[href="${what.link}"]`).click();
  else if (what.button) byText(what.button).click();
  else if (what.node) [...document.querySelectorAll(".node")].find((node) => node.getAttribute("aria-label") === what.node).dispatchEvent(new MouseEvent("click", { bubbles: true }));
  else {
    const range = document.querySelector("input[type=range]");
    range.value = what.range;
    range.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return new Promise((resolve) => {
    const look = () => {
      const found = document.querySelector(sign);
      const is = found && (!fresh || document.querySelector(fresh === "page" ? "tbody" : "main > p[role=status]").textContent !== before);
      // The element has been painted when the task after the next frame begins.
      if (is) requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
      else setTimeout(look, 1);
    };
    look();
  });
}

const rows = [];
await visit(browser, service.url, "#/nowhere", {}, async (page) => {
  for (const [name, from, what, sign, fresh] of STEPS) {
    const took = [];
    for (let time = 0; time < TIMES; time++) {
      await page.goto("about:blank");
      await page.goto(`${service.url}/console/${from.hash}`);
      await page.locator("main").waitFor();
      if (from.hash !== "#/nowhere") await page.locator("tbody tr, .slot-rows, .node").first().waitFor();
      const traced = time === TIMES - 1;
      if (traced) await browser.startTracing(page, { path: join(traces, `${name.replaceAll(/\W+/g, "-")}.json`) });
      took.push(await page.evaluate(act, { what, sign, fresh }));
      if (traced) await browser.stopTracing();
    }
    took.sort((one, other) => one - other);
    rows.push({ name, median: took[TIMES >> 1], slowest: took.at(-1) });
    console.log(`${name.padEnd(40)} ${Math.round(took[TIMES >> 1])} ms, at most ${Math.round(took.at(-1))} ms`);
  }
});
await browser.close();
await service.stop(true);
assert.equal(rows.length, STEPS.length);
const late = rows.filter(({ slowest }) => slowest > GOAL_MS);
console.log(`\nThe neighbourhood of ${subject}, up to ten associations away, has ${reached} widgets.`);
console.log(`${total.toLocaleString("en")} widgets, ${TIMES} times each: ${late.length ? `later than ${GOAL_MS} ms: ${late.map(({ name }) => name).join("; ")}` : `everything within ${GOAL_MS} ms`}. Traces: ${traces}`);
process.exit();
