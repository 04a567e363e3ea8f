// Every screen of the console in a real browser, against the real binary.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { ask, browse, serve, skip } from "./service.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const HOSTILE = ["<script>alert(1)</script>", `"quotes" & 'more'`, "..", ".", "\u202eright-to-left", "ü/日本?#%", "x".repeat(255), "{{7*7}}", "\u0007bell"];

let service;
let browser;

before(async () => {
  if (skip) return;
  [service, browser] = await Promise.all([serve(), browse()]);
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

/** A page on which nothing may go wrong: no error of a script, nothing that the policy forbids, nothing from elsewhere. */
async function open(path, options = {}, url = service.url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // A refusal is an answer: browsers write every 4xx and 5xx there.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) problems.push(message.text());
  });
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`) && dialog.dismiss());
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("blob:")) problems.push(`asks ${request.url()}`);
  });
  await page.goto(`${url}/console/${path}`);
  await page.locator("h1, main p").first().waitFor();
  return { page, problems, context };
}

async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
}

async function picture(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true });
}

/** Nothing is wider than the window. */
const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

test("the files are small", () => {
  const folder = process.env.FILES;
  const bytes = readdirSync(folder).reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name))).length, 0);
  assert.ok(bytes <= 250 * 1024, `${bytes} bytes compressed`);
});

test("the licences of what is in the files are ones that we ship", () => {
  const lock = JSON.parse(readFileSync(new URL("package-lock.json", import.meta.url), "utf8"));
  const shipped = Object.entries(lock.packages).filter(([path, { dev }]) => path && !dev);
  assert.ok(shipped.length >= 3);
  for (const [path, { license }] of shipped) assert.ok(["MIT", "ISC", "BSD-3-Clause", "Apache-2.0"].includes(license), `${path}: ${license}`);
});

test("from an empty registry to a first association, without reading anything", { skip, timeout: 120_000 }, async () => {
  const { page, problems, context } = await open("");
  await page.getByText("The registry is empty").waitFor();
  assert.deepEqual(await accessible(page), []);
  await picture(page, "empty");
  await page.getByRole("button", { name: "Make the example" }).click();
  await page.getByText("The registry is empty").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "Operations" }).first().click();
  const add = page.locator("section", { hasText: "Add a widget" }).first();
  await add.getByLabel("Serial number").fill("NEW-1");
  await add.getByLabel("Name").fill("made by hand");
  await add.getByLabel("Slots").fill("PQ");
  await add.getByRole("button", { name: "Add a widget" }).click();
  await add.getByText("It is registered.").waitFor();
  await add.getByRole("button", { name: "Add a widget" }).click();
  await add.getByText("This serial number is taken.").waitFor();
  await add.getByText("The same for a shell").click();
  assert.match(await add.locator("pre").textContent(), /^curl -i '.*\/rpc\/add_widget'/);
  const associate = page.locator("section", { hasText: "Associate two widgets" }).first();
  await associate.getByLabel("One widget").fill("NEW-1");
  await associate.getByLabel("The other widget").fill("TANK-1");
  await associate.getByRole("button", { name: "Associate" }).click();
  await associate.getByRole("alert").waitFor();
  await picture(page, "operations");
  assert.deepEqual(await accessible(page), []);
  await associate.getByLabel("The other widget").fill("VALVE-2");
  await associate.getByRole("button", { name: "Associate" }).click();
  await associate.getByRole("alert").or(associate.getByRole("status")).waitFor();
  await page.goto(`${service.url}/console/#/widget/NEW-1`);
  await page.getByRole("heading", { name: "NEW-1" }).waitFor();
  assert.deepEqual(problems, []);
  await context.close();
});

test("the overview is live", { skip, timeout: 60_000 }, async () => {
  const { page, problems, context } = await open("");
  await page.getByText("Health").waitFor();
  await ask(service.url, "add_widget", { widget_sn: "live", widget_name: "", slots: [] });
  await page.waitForFunction(() => document.querySelectorAll(".chart canvas").length === 2);
  await page.waitForTimeout(4_500);
  await picture(page, "overview");
  assert.deepEqual(await accessible(page), []);
  assert.deepEqual(problems, []);
  await context.close();
});

test("lists: filters by the form and by the line, pages, an export", { skip, timeout: 60_000 }, async () => {
  for (let number = 0; number < 45; number++) {
    await ask(service.url, "add_widget", { widget_sn: `LIST-${String(number).padStart(2, "0")}`, widget_name: number % 2 ? "odd" : "even", slots: ["R"] });
  }
  const { page, problems, context } = await open("#/widgets");
  await page.getByLabel("Serial number begins with").fill("LIST-");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("link", { name: "LIST-00" }).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 20);
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("link", { name: "LIST-20" }).waitFor();
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("link", { name: "LIST-44" }).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 5);
  assert.ok(await page.getByRole("button", { name: "Next" }).isDisabled());
  await page.getByRole("button", { name: "Count them" }).click();
  await page.getByText("45 in all").waitFor();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export these as CSV" }).click()]);
  const csv = readFileSync(await file.path(), "utf8");
  assert.match(csv, /^serial_number,name,slots\r?\nLIST-40,even,/);
  await picture(page, "widgets");
  assert.deepEqual(await accessible(page), []);
  const line = page.getByLabel("The same as a query of the API");
  await line.fill("name=eq.odd&serial_number=like.LIST-*");
  await line.press("Enter");
  await page.getByRole("link", { name: "LIST-01" }).waitFor();
  assert.equal(await page.getByRole("link", { name: "LIST-00" }).count(), 0);
  await line.fill("colour=eq.red");
  await line.press("Enter");
  await page.getByText("There is no such column.").waitFor();
  assert.deepEqual(problems, []);
  await context.close();
});

test("a neighbourhood is walked by clicks and by the keyboard", { skip, timeout: 60_000 }, async () => {
  const { page, problems, context } = await open("#/near/PUMP-1");
  await page.locator(".node").first().waitFor();
  await picture(page, "neighbourhood");
  assert.deepEqual(await accessible(page), []);
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export as SVG" }).click()]);
  assert.match(readFileSync(await file.path(), "utf8"), /^<svg[^>]*xmlns="http:\/\/www.w3.org\/2000\/svg"/);
  await page.locator(".node[aria-label='PANEL-1']").click();
  await page.getByRole("heading", { name: "Around PANEL-1" }).waitFor();
  await page.locator(".node[aria-label='METER-1']").press("Enter");
  await page.getByRole("heading", { name: "Around METER-1" }).waitFor();
  assert.deepEqual(problems, []);
  await context.close();
});

test("a widget with associations goes only when its serial number is typed", { skip, timeout: 60_000 }, async () => {
  const { page, problems, context } = await open("#/widget/SENSOR-1");
  await page.getByRole("button", { name: "Remove this widget…" }).click();
  const remove = page.getByRole("button", { name: "Remove it" });
  assert.ok(await remove.isDisabled());
  await page.getByLabel("Type the serial number").fill("SENSOR");
  assert.ok(await remove.isDisabled());
  await picture(page, "widget");
  assert.deepEqual(await accessible(page), []);
  await page.getByLabel("Type the serial number").fill("SENSOR-1");
  await remove.click();
  await page.getByText("It was removed.").waitFor();
  assert.deepEqual(problems, []);
  await context.close();
});

test("changes appear as they happen, can be paused, and go on over a restart", { skip, timeout: 90_000 }, async () => {
  let own = await serve();
  const { page, problems, context } = await open("#/changes", {}, own.url);
  await page.getByText("Waiting for the next change.").waitFor();
  await page.waitForTimeout(500);
  await ask(own.url, "add_widget", { widget_sn: "seen", widget_name: "", slots: ["P"] });
  await page.getByRole("link", { name: "seen" }).waitFor();
  await picture(page, "changes");
  assert.deepEqual(await accessible(page), []);
  await page.getByRole("button", { name: "Pause" }).click();
  await ask(own.url, "add_widget", { widget_sn: "later", widget_name: "", slots: ["P"] });
  await page.waitForTimeout(1_000);
  assert.equal(await page.getByRole("link", { name: "later" }).count(), 0);
  await page.getByRole("button", { name: "Go on" }).click();
  await page.getByRole("link", { name: "later" }).waitFor();
  const { host } = new URL(own.url);
  await own.stop(true);
  own = await serve(host, [], own.folder);
  await ask(own.url, "remove_widget", { widget_sn: "seen" });
  await page.locator(".operation.remove_widget").waitFor();
  assert.equal(await page.locator(".changes li").count(), 3, "each change once");
  assert.deepEqual(problems, []);
  await context.close();
  await own.stop();
});

test("whatever a serial number contains, it is shown as text and can be reached", { skip, timeout: 90_000 }, async () => {
  for (const name of HOSTILE) assert.equal(await ask(service.url, "add_widget", { widget_sn: name, widget_name: name, slots: ["P"] }), 204, name);
  const { page, problems, context } = await open("#/widgets");
  for (const name of HOSTILE) {
    await page.goto(`${service.url}/console/#/widget/${encodeURIComponent(name)}`);
    await page.getByRole("button", { name: "Remove this widget…" }).waitFor();
    assert.equal(await page.locator("h1").textContent(), name);
  }
  assert.ok((await wide(page)) <= 0, "a long serial number does not widen the page");
  assert.deepEqual(problems, []);
  await context.close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`a phone, ${colorScheme}`, { skip, timeout: 90_000 }, async () => {
    const options = { viewport: { width: 390, height: 844 }, colorScheme, deviceScaleFactor: 2, hasTouch: true };
    const { page, problems, context } = await open("", options);
    for (const [name, path] of [["overview", ""], ["widgets", "widgets"], ["widget", "widget/PUMP-1"], ["near", "near/PUMP-1"], ["operations", "operations"], ["changes", "changes?widget_sn=PUMP-1"]]) {
      await page.goto(`${service.url}/console/#/${path}`);
      await page.waitForTimeout(700);
      assert.ok((await wide(page)) <= 0, `${name} is as wide as the phone`);
      assert.deepEqual(await accessible(page), [], name);
      await picture(page, `phone-${colorScheme}-${name}`);
    }
    assert.deepEqual(problems, []);
    await context.close();
  });
}

test("wide and dark", { skip, timeout: 60_000 }, async () => {
  const { page, problems, context } = await open("#/near/PUMP-1", { colorScheme: "dark" });
  await page.locator(".node").first().waitFor();
  await picture(page, "neighbourhood-dark");
  assert.deepEqual(await accessible(page), []);
  assert.deepEqual(problems, []);
  await context.close();
});
