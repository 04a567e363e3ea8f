// Tests what a user does with the console, starting with an empty registry. The tests are the same for every store.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { PHONE, SCREENS, faults, go, overhang, picture, shifts, visit } from "./page.mjs";
import { ask, browse, skip } from "./service.mjs";

/** Defines the tests of a store. `store` is its name; `start` starts a service on an empty store. */
export function screens(store, start) {
  let service;
  let browser;
  before(async () => {
    if (skip) return;
    [service, browser] = await Promise.all([start(), browse()]);
  });
  after(async () => {
    await browser?.close();
    await service?.stop();
  });
  const on = (name, work) => test(`${store}: ${name}`, { skip, timeout: 120_000 }, work);
  const look = (path, work, options = {}) => visit(browser, service.url, path, options, work);
  const take = (page, name) => (store === "embedded" ? picture(page, name) : undefined);

  on("from an empty registry to a first association, without any documentation", () =>
    look("", async (page) => {
      await page.getByText("The registry is empty").waitFor();
      assert.deepEqual(await faults(page), []);
      await take(page, "empty");
      await page.getByRole("button", { name: "Make the example" }).click();
      await page.getByText("The example is ready").waitFor();
      await page.getByRole("link", { name: "See what a pump is connected to" }).click();
      await page.locator(".node[aria-label='TANK-1']").waitFor();
      await page.getByRole("link", { name: "Operations" }).first().click();
      const add = page.locator("section", { hasText: "Add a widget" }).first();
      await add.getByLabel("Serial number").fill("NEW-1");
      await add.getByLabel("Name").fill("made by hand");
      await add.getByLabel("Slots").fill("p, q");
      await add.getByRole("button", { name: "Add a widget" }).click();
      await add.getByText("It is registered.").waitFor();
      await add.getByRole("button", { name: "Add a widget" }).click();
      await add.getByText("This serial number is taken.").waitFor();
      await add.getByText("As a shell command").click();
      assert.match(await add.locator("pre").textContent(), /^curl -i '.*\/rpc\/add_widget' .*"slots":\["P","Q"\]/);
      const associate = page.locator("section", { hasText: "Associate two widgets" }).first();
      await associate.getByLabel("One widget").fill("NEW-1");
      await associate.getByLabel("The other widget").fill("TAN");
      await associate.locator("datalist option[value='TANK-1']").waitFor({ state: "attached" });
      await associate.getByLabel("The other widget").fill("TANK-1");
      await associate.getByRole("button", { name: "Associate" }).click();
      await associate.getByText("All slots of this port type are in use").waitFor();
      await take(page, "operations");
      assert.deepEqual(await faults(page), []);
      await add.getByLabel("Serial number").fill("NEW-2");
      await add.getByRole("button", { name: "Add a widget" }).click();
      await add.getByText("It is registered.").waitFor();
      await associate.getByLabel("The other widget").fill("NEW-2");
      await associate.getByRole("button", { name: "Associate" }).click();
      await associate.getByText("They are associated.").waitFor();
      await associate.getByRole("link", { name: "NEW-1" }).click();
      await page.getByRole("heading", { name: "NEW-1" }).waitFor();
      await page.getByRole("link", { name: "NEW-2" }).first().waitFor();
    }));

  on("the overview updates itself", () =>
    look("", async (page) => {
      await page.locator(".health").waitFor();
      const widgets = page.locator(".figure", { hasText: "Widgets" }).locator("strong");
      if (store === "embedded") {
        const before = Number(await widgets.textContent());
        // The exact counts by port type, and their sum.
        const free = page.locator(".figure", { hasText: "Free slots" });
        const counts = async () => (await free.locator(".ports > span").allTextContents()).map((text) => Number(/\d+/.exec(text)[0]));
        const shown = await counts();
        assert.equal(shown.length, 3);
        assert.equal(shown.reduce((sum, each) => sum + each), Number(await free.locator("strong").textContent()));
        assert.equal(await ask(service.url, "add_widget", { widget_sn: "live", widget_name: "", slots: ["P"] }), 204);
        await page.waitForFunction((count) => document.querySelector(".figure strong").textContent === count, String(before + 1));
        assert.deepEqual(await counts(), [shown[0] + 1, shown[1], shown[2]], "one more free slot of port P");
      }
      await page.getByText("ready", { exact: true }).waitFor();
      await page.waitForFunction(() => document.querySelectorAll(".chart canvas").length === 2);
      // The legends show the last reading.
      await page.waitForFunction(() => [...document.querySelectorAll(".chart .u-value")].some(({ textContent }) => textContent.endsWith("/s")));
      await take(page, "overview");
      assert.deepEqual(await faults(page), []);
    }));

  on("lists have filters by form and by API query, pages, and an export", async () => {
    for (let number = 0; number < 45; number++) {
      const widget_sn = `LIST-${String(number).padStart(2, "0")}`;
      assert.equal(await ask(service.url, "add_widget", { widget_sn, widget_name: number % 2 ? "odd" : "even", slots: ["R"] }), 204);
    }
    await look("#/widgets", async (page) => {
      await page.getByLabel("Serial number begins with").fill("LIST-");
      await page.getByRole("button", { name: "Search" }).click();
      // The list of all widgets, which is shown until the search is answered, contains one of these too.
      await page.waitForFunction(() => {
        const rows = [...document.querySelectorAll("tbody tr")];
        return rows.length === 20 && rows.every((row) => row.textContent.trim().startsWith("LIST-"));
      });
      await page.getByRole("link", { name: "LIST-00" }).waitFor();
      await page.getByRole("button", { name: "Next" }).click();
      await page.getByRole("link", { name: "LIST-20" }).waitFor();
      await page.getByRole("button", { name: "Next" }).click();
      await page.getByRole("link", { name: "LIST-44" }).waitFor();
      assert.equal(await page.locator("tbody tr").count(), 5);
      assert.ok(await page.getByRole("button", { name: "Next" }).isDisabled());
      await page.getByRole("button", { name: "Count them" }).click();
      await page.getByText("45 in total").waitFor();
      const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export these as CSV" }).click()]);
      const csv = readFileSync(await file.path(), "utf8");
      assert.match(csv, /^serial_number,name,slots\r?\nLIST-40,even,/);
      assert.equal(csv.trim().split("\n").length, 6, "the export has the rows that are shown");
      await take(page, "widgets");
      assert.deepEqual(await faults(page), []);
      await page.getByRole("button", { name: "Previous" }).click();
      await page.getByRole("link", { name: "LIST-20" }).waitFor();
      const line = page.getByLabel("The same as an API query");
      await line.fill("name=eq.odd&serial_number=like.LIST-*");
      await line.press("Enter");
      await page.getByRole("link", { name: "LIST-01" }).waitFor();
      assert.equal(await page.getByRole("link", { name: "LIST-00" }).count(), 0);
      assert.ok(await line.evaluate((line) => line === document.activeElement), "the keyboard focus stays in the query");
      await line.fill("colour=eq.red");
      await line.press("Enter");
      await page.getByText("There is no such column.").waitFor();
      await page.getByRole("button", { name: "Clear" }).click();
      await page.getByLabel("Has a free slot").selectOption("R");
      await page.getByLabel("Associated with").fill("NEW-2");
      await page.getByRole("button", { name: "Search" }).click();
      await page.getByText("No widget matches.").waitFor();
      await page.getByLabel("Has a free slot").selectOption("");
      await page.getByRole("button", { name: "Search" }).click();
      await page.getByRole("link", { name: "NEW-1" }).waitFor();
      assert.equal(await page.locator("tbody tr").count(), 1);
    });
  });

  on("a long search can be stopped and repeated", () =>
    look("#/widgets", async (page) => {
      await page.locator("tbody tr").first().waitFor();
      let pass;
      const held = new Promise((resolve) => (pass = resolve));
      let asked = 0;
      await page.route("**/widgets?*", async (route) => {
        asked += 1;
        if (asked === 1) await held;
        await route.continue().catch(() => {});
      });
      await page.getByLabel("Name").fill("*pump*");
      await page.getByRole("button", { name: "Search" }).click();
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByText("The search was stopped.").waitFor();
      pass();
      await page.getByRole("button", { name: "Search again" }).click();
      await page.getByRole("link", { name: "PUMP-1" }).waitFor();
    }));

  on("after a slow page is stopped, the pager and the export continue from the page that is shown", () =>
    look("#/widgets?serial_number=like.LIST-*", async (page) => {
      await page.getByRole("link", { name: "LIST-00" }).waitFor();
      let [held, pass] = [null, null];
      const hold = () => (held = new Promise((resolve) => (pass = resolve)));
      await page.route("**/widgets?*LIST-19*", async (route) => {
        await held;
        await route.continue().catch(() => {});
      });
      const [next, previous] = ["Next", "Previous"].map((name) => page.getByRole("button", { name }));
      hold();
      await next.click();
      await page.getByRole("button", { name: "Stop" }).click();
      await page.locator(".pager").getByText("The search was stopped.").waitFor();
      assert.deepEqual(await faults(page), []);
      const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export these as CSV" }).click()]);
      assert.match(readFileSync(await file.path(), "utf8"), /^.*\r?\nLIST-00,/);
      pass();
      // Both clicks of a double click come before the page, and want the same one.
      hold();
      await next.dblclick();
      pass();
      await page.getByRole("link", { name: "LIST-20" }).waitFor();
      assert.equal(await page.locator(".pager").getByText("The search was stopped.").count(), 0);
      await previous.click();
      await page.getByRole("link", { name: "LIST-00" }).waitFor();
      assert.ok(await previous.isDisabled());
    }));

  on("a long search for the changes of a widget can be stopped and repeated", () =>
    look("#/nowhere", async (page) => {
      let pass;
      const held = new Promise((resolve) => (pass = resolve));
      let asked = 0;
      await page.route("**/changes?*", async (route) => {
        asked += 1;
        if (asked <= 2) await held;
        await route.continue().catch(() => {});
      });
      await go(page, "#/widget/PUMP-1");
      const stop = page.getByRole("button", { name: "Stop" });
      const nothing = page.getByText("No changes of this widget are kept.");
      await stop.waitFor();
      // A second search takes the place of the first, whose end must not look like its own.
      const second = page.waitForRequest("**/changes?*");
      await page.evaluate(() => dispatchEvent(new Event("token")));
      await second;
      await shifts(page);
      assert.equal(await nothing.count(), 0);
      await stop.click();
      await page.getByText("The search was stopped.").waitFor();
      assert.equal(await nothing.count(), 0);
      assert.deepEqual(await faults(page), []);
      pass();
      await page.getByRole("button", { name: "Search again" }).click();
      await page.locator(".changes li").first().waitFor();
      assert.equal(await page.getByText("The search was stopped.").count(), 0);
    }));

  on("a neighbourhood can be explored by clicks and by the keyboard", () =>
    look("#/near/PUMP-1", async (page) => {
      await page.locator(".node").first().waitFor();
      await take(page, "neighbourhood");
      assert.deepEqual(await faults(page), []);
      const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export as SVG" }).click()]);
      const svg = readFileSync(await file.path(), "utf8");
      assert.match(svg, /^<svg[^>]*xmlns="http:\/\/www.w3.org\/2000\/svg"/);
      assert.match(svg, /<path [^>]*stroke="rgb/, "the SVG contains the colours");
      await page.locator(".node[aria-label='PANEL-1']").click();
      await page.getByRole("heading", { name: "Around PANEL-1" }).waitFor();
      await page.locator(".node.centre[aria-label='PANEL-1']").waitFor();
      await page.locator(".node[aria-label='METER-1']").press("Enter");
      await page.getByRole("heading", { name: "Around METER-1" }).waitFor();
      // The keyboard focus has moved along with the walk.
      await page.waitForFunction(() => document.activeElement.getAttribute("aria-label") === "METER-1");
      await page.getByLabel("Associations away").focus();
      await page.keyboard.press("ArrowLeft");
      await page.getByText("3 widgets, 2 associations").waitFor();
    }));

  on("a widget with associations is removed only after its serial number is typed", () =>
    look("#/operations", async (page) => {
      const form = page.locator("section", { hasText: "Remove a widget" }).first();
      await form.getByLabel("Serial number").fill("SENSOR-1");
      await form.getByRole("button", { name: "See what goes with it…" }).click();
      await page.getByRole("button", { name: "Remove this widget…" }).click();
      const remove = page.getByRole("button", { name: "Remove it" });
      assert.ok(await remove.isDisabled());
      await page.getByLabel("Type the serial number").fill("SENSOR");
      assert.ok(await remove.isDisabled());
      await take(page, "widget");
      assert.deepEqual(await faults(page), []);
      await page.getByLabel("Type the serial number").fill("SENSOR-1");
      await remove.click();
      await page.getByText("It was removed.").waitFor();
      await go(page, "#/widget/SENSOR-1");
      await page.reload();
      await page.getByText("There is no such widget.").waitFor();
    }));

  on("an association can be removed, and a form filled in, by the keyboard alone", () =>
    look("#/widget/NEW-1", async (page) => {
      const remove = page.getByRole("button", { name: "Remove association with NEW-2 over P" });
      await remove.waitFor();
      // Tab reaches every control from the beginning of the page.
      await page.locator("body").press("Tab");
      for (let steps = 0; steps < 30; steps++) {
        if (await remove.evaluate((button) => button === document.activeElement)) break;
        await page.keyboard.press("Tab");
      }
      await page.keyboard.press("Enter");
      await remove.waitFor({ state: "detached" });
      // The newest change comes first.
      await page.locator(".changes li:first-child .remove_association").waitFor();
      await go(page, "#/operations");
      const fields = page.locator("section", { hasText: "Associate two widgets" }).first();
      await fields.getByLabel("One widget").focus();
      await page.keyboard.type("NEW-1");
      await page.keyboard.press("Tab");
      await page.keyboard.type("NEW-2");
      await page.keyboard.press("Enter");
      await fields.getByText("They are associated.").waitFor();
    }));

  for (const [name, options] of [["a phone", PHONE], ["a desktop", {}]]) {
    for (const colorScheme of ["light", "dark"]) {
      // The screens look the same on every store.
      if (store !== "embedded" && (name !== "a desktop" || colorScheme !== "light")) continue;
      on(`every screen on ${name}, ${colorScheme}: nothing overflows or shifts, and axe-core finds no fault`, () =>
        look("#/nowhere", async (page) => {
          for (const [screen, path, sign] of SCREENS) {
            await go(page, `#/${path}`);
            await page.locator(sign).first().waitFor();
            assert.deepEqual(await shifts(page), [], screen);
            assert.ok((await overhang(page)) <= 0, `${screen} is wider than the window`);
            assert.deepEqual(await faults(page), [], screen);
            await take(page, `${name.split(" ")[1]}-${colorScheme}-${screen}`);
          }
        }, { colorScheme, ...options }));
    }
  }
}
