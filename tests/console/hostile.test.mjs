// Tests every screen with serial numbers and names that are chosen to break pages.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { PHONE, faults, go, overhang, picture, shifts, visit } from "./page.mjs";
import { ask, browse, serve, skip } from "./service.mjs";

const HOSTILE = [
  "<script>globalThis.taken = 1</script>",
  `<img src=x onerror="globalThis.taken = 1">`,
  `"quotes" & 'more' \\ \`id\` $(id)`,
  "..",
  ".",
  "\u202eright-to-left",
  "مضخة-١",
  "ü/日本?#%2F",
  "x".repeat(255),
  "👩‍👩‍👧‍👦".repeat(10),
  "{{7*7}} ${7*7}",
  "\u0007bell",
  "two\nlines",
  " spaces at both ends ",
  `in.("a"),b)`,
  "=HYPERLINK(1)",
];
const shell = promisify(execFile);

let service;
let browser;
before(async () => {
  if (skip) return;
  [service, browser] = await Promise.all([serve(), browse()]);
  for (const name of HOSTILE) assert.equal(await ask(service.url, "add_widget", { widget_sn: name, widget_name: name, slots: ["P", "R"] }), 204, name);
  for (const [widget1_sn, widget2_sn] of pairs()) {
    assert.equal(await ask(service.url, "associate_widgets", { widget1_sn, widget2_sn, port: "P" }), 204, widget1_sn);
  }
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

const pairs = () => HOSTILE.filter((_, index) => index % 2 === 0).map((name, index) => [name, HOSTILE[2 * index + 1]]);
const peerOf = (name) => HOSTILE[HOSTILE.indexOf(name) ^ 1];

/** Opens the console and does `work`, during which no such name may run as a script. */
const look = (path, work, options = {}) =>
  visit(browser, service.url, path, options, async (page) => {
    await work(page);
    assert.equal(await page.evaluate(() => globalThis.taken), undefined);
  });

test("a list shows hostile names unchanged, and links to each widget", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    await page.locator("tbody tr").nth(HOSTILE.length - 1).waitFor();
    const shown = await page.locator("tbody th a").evaluateAll((links) => links.map((link) => [link.textContent, decodeURIComponent(link.hash.slice("#/widget/".length))]));
    assert.deepEqual(shown.map(([text]) => text).toSorted(), HOSTILE.toSorted());
    for (const [text, target] of shown) assert.equal(target, text);
    assert.deepEqual(await shifts(page), []);
    assert.ok((await overhang(page)) <= 0, "the page is wider than the window");
    assert.deepEqual(await faults(page), []);
    await picture(page, "hostile");
    for (const name of HOSTILE) {
      await page.getByLabel("Associated with").fill(name);
      await page.getByRole("button", { name: "Search" }).click();
      // A form field cannot contain a line break.
      if (name.includes("\n")) continue;
      await page.waitForFunction((peer) => document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody th a").textContent === peer, peerOf(name));
    }
  }));

test("the screen of a widget with a hostile name shows its slots, its changes and its removal", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    for (const name of HOSTILE) {
      await go(page, `#/widget/${encodeURIComponent(name)}`);
      await page.waitForFunction((name) => document.querySelector("h1").textContent === name && document.querySelector(".slot-rows"), name);
      await page.locator(".slot-rows a").waitFor();
      assert.equal(await page.locator(".slot-rows a").textContent(), peerOf(name));
      await page.waitForFunction(() => document.querySelectorAll(".changes li").length >= 2);
      await page.getByRole("button", { name: "Remove this widget…" }).click();
      assert.ok(await page.getByRole("button", { name: "Remove it" }).isDisabled());
      await page.getByLabel("Type the serial number").fill(name);
      assert.ok(await page.getByRole("button", { name: "Remove it" }).isEnabled(), name);
    }
    assert.deepEqual(await faults(page), []);
  }));

test("the neighbourhood of a widget with a hostile name leads to its peer", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    for (const name of HOSTILE) {
      await go(page, `#/near/${encodeURIComponent(name)}`);
      await page.waitForFunction((name) => document.querySelector(".node.centre")?.getAttribute("aria-label") === name, name);
      assert.equal(await page.locator("h1 bdi").textContent(), name);
      assert.equal(await page.locator(".node").count(), 2, name);
      // If no URL path can name the widget, the console builds the neighbourhood from several lists and says so.
      assert.equal(await page.getByText("made of several lists").count(), [".", ".."].includes(name) ? 1 : 0, name);
      await page.locator(".node:not(.centre)").click();
      await page.waitForFunction((peer) => document.querySelector("h1 bdi").textContent === peer, peerOf(name));
    }
    assert.deepEqual(await faults(page), []);
  }));

test("an exported neighbourhood is a well-formed picture that needs no style sheet", { skip, timeout: 60_000 }, () =>
  look("#/near/%07bell", async (page) => {
    await page.locator(".node.centre").waitFor();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export as SVG" }).click()]);
    const seen = await page.evaluate((svg) => {
      const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
      const shapes = [...parsed.querySelectorAll("path, circle, text, rect")];
      return {
        fault: parsed.querySelector("parsererror")?.textContent,
        titles: [...parsed.querySelectorAll("title")].map(({ textContent }) => textContent),
        unfilled: shapes.filter((shape) => !shape.hasAttribute("fill")).map(({ outerHTML }) => outerHTML),
        labels: [...new Set([...parsed.querySelectorAll(".node text")].map((label) => label.getAttribute("paint-order")))],
        ports: [...new Set([...parsed.querySelectorAll(".edge text")].map((port) => port.getAttribute("font-weight")))],
      };
    }, readFileSync(await file.path(), "utf8"));
    assert.equal(seen.fault, undefined);
    assert.ok(seen.titles.includes("\ufffdbell: \ufffdbell"), `${seen.titles}`);
    assert.deepEqual(seen.unfilled, []);
    assert.deepEqual([seen.labels, seen.ports], [["stroke"], ["650"]]);
  }));

test("operations work with hostile names, and the shell command sends the same request as the form", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    for (const [one, other] of pairs()) {
      if (other.includes("\n")) continue;
      await go(page, `#/operations?widget1_sn=${encodeURIComponent(one)}`);
      await page.reload();
      const section = page.locator("section", { hasText: "Associate two widgets" }).first();
      await section.getByLabel("The other widget").fill(other);
      await section.getByLabel("Port").selectOption("R");
      await section.getByRole("button", { name: "Associate" }).click();
      await section.getByText("They are associated.").waitFor();
      await section.getByText("As a shell command").click();
      const line = await section.locator("pre").textContent();
      // The copied line must be exactly what is displayed.
      assert.doesNotMatch(line, /[\u0000-\u001f\u200e\u202a-\u202e]/);
      const { stdout } = await shell("/bin/sh", ["-c", line]);
      assert.match(stdout, /^HTTP\/1.1 409 /, line);
      assert.match(stdout, /WG003/, "the shell command repeats the operation of the form");
    }
    assert.deepEqual(await faults(page), []);
  }));

test("the changes of a widget with a hostile name are listed", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    for (const name of HOSTILE) {
      await go(page, `#/changes?widget_sn=${encodeURIComponent(name)}`);
      await page.waitForFunction((name) => {
        const first = [...document.querySelectorAll(".changes .add_widget")].at(-1);
        return first?.closest("li").querySelector(".what a").textContent === name;
      }, name);
    }
    assert.ok((await overhang(page)) <= 0, "the page is wider than the window");
    assert.deepEqual(await faults(page), []);
  }));

test("no screen with a hostile name is wider than a phone", { skip, timeout: 120_000 }, () =>
  look("#/widgets", async (page) => {
    const long = encodeURIComponent("x".repeat(255));
    for (const [path, sign] of [["widgets", "tbody tr"], [`widget/${long}`, ".changes li"], [`near/${long}`, ".node"], [`operations?widget1_sn=${long}`, "form"], [`changes?widget_sn=${long}`, ".changes li"]]) {
      await go(page, `#/${path}`);
      await page.locator(sign).first().waitFor();
      assert.ok((await overhang(page)) <= 0, path);
      assert.deepEqual(await shifts(page), [], path);
    }
  }, PHONE));

test("truncated or invented addresses show a problem and do no harm", { skip, timeout: 60_000 }, () =>
  look("#/widget/%E0%A4%A", async (page) => {
    await page.locator("main .problem").waitFor();
    await go(page, "#/near/");
    await page.locator("main .problem").first().waitFor();
    await go(page, "#/javascript:globalThis.taken=1");
    await page.getByText("There is no such page.").waitFor();
    await go(page, "#/widgets?%%%");
    await page.getByText("There is no such column.").waitFor();
  }));

test("a query filters the list, and the table decides on the columns, the order and the rows of a page", { skip, timeout: 60_000 }, () =>
  look("#/nowhere", async (page) => {
    for (const paging of ["select=serial_number", "order=serial_number.desc", "limit=3", "limit=100000", "offset=3"]) {
      await go(page, `#/widgets?${paging}&serial_number=neq.none`);
      await page.locator("tbody tr").nth(HOSTILE.length - 1).waitFor();
      assert.deepEqual(await page.locator("tbody th a").allTextContents(), HOSTILE.toSorted(), paging);
      assert.equal(await page.getByLabel("The same as an API query").inputValue(), "serial_number=neq.none");
      await page.getByRole("button", { name: "Count them" }).click();
      await page.getByText(`${HOSTILE.length} in total`).waitFor();
      await go(page, "#/nowhere");
      await page.getByText("There is no such page.").waitFor();
    }
  }));
