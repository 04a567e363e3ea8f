// Opens the console in a browser for the tests, and checks its pages.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

/** Each screen's name, its path, and the element that appears with its content. */
export const SCREENS = [
  ["overview", "", ".health"],
  ["widgets", "widgets", "tbody tr"],
  ["widget", "widget/PUMP-1", ".slot-rows"],
  ["neighbourhood", "near/PUMP-1", ".node"],
  ["operations", "operations", "form"],
  ["changes", "changes?widget_sn=PUMP-1", "main .changes, main .nothing, main .problem"],
];

/**
 * Opens the console and does `work` with the page. Meanwhile nothing may go wrong: no script error, no violation of the
 * content security policy, no request to another site, no dialog, and no token in a URL. If the page is expected to
 * break, `breaks` says how.
 */
export async function visit(browser, url, path, options, work) {
  const { token, breaks, ...rest } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...rest });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // A refusal is a normal answer, but browsers log every 4xx and 5xx as an error.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) problems.push(message.text());
  });
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`) && dialog.dismiss());
  page.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`) && !request.url().startsWith("blob:")) problems.push(`asks ${request.url()}`);
    if (token && request.url().includes(token)) problems.push(`a token in ${request.url()}`);
  });
  await page.addInitScript(() => {
    globalThis.moved = [];
    new PerformanceObserver((list) => {
      for (const { value, hadRecentInput, sources } of list.getEntries()) {
        // A number that gets longer moves its neighbour in the line by some pixels, which counts less than this.
        if (!hadRecentInput && value >= 0.0001) globalThis.moved.push(`${value.toFixed(4)}: ${sources.map(({ node }) => node?.outerHTML?.slice(0, 80) ?? node?.textContent)}`);
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  if (token) await page.addInitScript((token) => sessionStorage.setItem("widgets.token", token), token);
  await page.goto(`${url}/console/${path}`);
  try {
    await work(page);
  } catch (failure) {
    // Problems on the page are the likeliest cause of the failure.
    if (problems.length) failure.message += `\nmeanwhile on the page: ${problems.join("\n")}`;
    throw failure;
  }
  if (breaks) assert.ok(problems.some((problem) => breaks.test(problem)), `the page should have broken: ${problems}`);
  assert.deepEqual(problems.filter((problem) => !breaks?.test(problem)), []);
  await context.close();
}

/** Returns the accessibility faults that axe-core finds. */
export async function faults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
}

/** Returns how much wider than the window the page is, in pixels. */
export const overhang = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** Returns the elements that moved without an action of the user since the last call. */
export async function shifts(page) {
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
  return page.evaluate(() => globalThis.moved.splice(0));
}

export async function picture(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true });
}

export const go = (page, hash) => page.evaluate((hash) => void (location.hash = hash), hash);
