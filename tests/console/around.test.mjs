// Tests the page in different surroundings: the service restarts or does not answer, or a proxy is in front of it.
import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PHONE, SCREENS, faults, go, overhang, picture, shifts, visit } from "./page.mjs";
import { ask, browse, nginx, serve, skip } from "./service.mjs";

let browser;
before(async () => {
  if (!skip) browser = await browse();
});
after(() => browser?.close());

test("changes appear immediately, can be paused, and continue after a restart of the service", { skip, timeout: 90_000 }, async () => {
  let service = await serve();
  await visit(browser, service.url, "#/changes", {}, async (page) => {
    await page.getByText("Waiting for the next change.").waitFor();
    assert.deepEqual(await shifts(page), []);
    await ask(service.url, "add_widget", { widget_sn: "seen", widget_name: "", slots: ["P"] });
    await page.getByRole("link", { name: "seen" }).waitFor();
    await picture(page, "changes");
    assert.deepEqual(await faults(page), []);
    await page.getByRole("button", { name: "Pause" }).click();
    await ask(service.url, "add_widget", { widget_sn: "later", widget_name: "", slots: ["P"] });
    // Once this later request is answered, any earlier request for changes would be answered as well.
    await page.evaluate(() => fetch("../widgets/later").then((answer) => answer.text()));
    assert.equal(await page.getByRole("link", { name: "later" }).count(), 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByRole("link", { name: "later" }).waitFor();
    const { host } = new URL(service.url);
    await service.stop(true);
    await page.getByText("The service does not answer.").waitFor();
    service = await serve({ listen: host, folder: service.folder });
    await ask(service.url, "remove_widget", { widget_sn: "seen" });
    await page.locator(".operation.remove_widget").waitFor();
    assert.equal(await page.locator(".changes li").count(), 3, "each change once");
    assert.equal(await page.locator(".problem").count(), 0);
    await page.getByLabel("Operation").selectOption("remove_widget");
    await page.getByLabel("Begin with").selectOption("oldest");
    await page.locator(".changes li:only-child .remove_widget").waitFor();
  });
  await service.stop();
});

test("a page that follows the changes keeps nothing of an answer that is shown", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await visit(browser, service.url, "#/nowhere", {}, async (page) => {
    await page.evaluate(() => {
      globalThis.added = globalThis.kept = 0;
      const { addEventListener, removeEventListener } = EventTarget.prototype;
      AbortSignal.prototype.addEventListener = function (...listener) {
        globalThis.added += 1;
        globalThis.kept += 1;
        return addEventListener.apply(this, listener);
      };
      AbortSignal.prototype.removeEventListener = function (...listener) {
        globalThis.kept -= 1;
        return removeEventListener.apply(this, listener);
      };
    });
    await go(page, "#/changes");
    await page.getByText("Waiting for the next change.").waitFor();
    for (let number = 0; number < 5; number++) {
      await ask(service.url, "add_widget", { widget_sn: `ROUND-${number}`, widget_name: "", slots: [] });
      await page.getByRole("link", { name: `ROUND-${number}` }).waitFor();
    }
    const [added, kept] = await page.evaluate(() => [globalThis.added, globalThis.kept]);
    assert.ok(added >= 5 && kept <= 1, `${kept} of ${added} listeners are kept`);
  });
  await service.stop();
});

test("if there are more changes than fit, the oldest are shown a screen at a time, and the newest up to a limit", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await visit(browser, service.url, "#/changes", {}, async (page) => {
    await page.getByText("Waiting for the next change.").waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    const names = Array.from({ length: 250 }, (_, number) => `MANY-${number}`);
    await Promise.all(names.map((widget_sn) => ask(service.url, "add_widget", { widget_sn, widget_name: "", slots: [] })));
    const skipped = page.waitForResponse((answer) => answer.url().includes("after=now"));
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText("More changes happen than can be shown").waitFor();
    assert.equal(await page.locator(".changes li").count(), 200);
    // From here on, changes are shown again.
    await skipped;
    await ask(service.url, "add_widget", { widget_sn: "AFTERWARDS", widget_name: "", slots: [] });
    await page.getByRole("link", { name: "AFTERWARDS" }).waitFor();
    await page.getByLabel("Begin with").selectOption("oldest");
    await page.getByText("These are the oldest changes.").waitFor();
    assert.equal(await page.locator(".changes li").count(), 200);
    assert.equal(await page.getByRole("link", { name: "AFTERWARDS" }).count(), 0);
    assert.deepEqual(await faults(page), []);
    await page.getByRole("button", { name: "Show the next ones" }).click();
    await page.locator(".changes li:first-child", { hasText: "AFTERWARDS" }).waitFor();
  });
  await service.stop();
});

test("after the store is replaced, its changes are followed from the beginning", { skip, timeout: 90_000 }, async () => {
  let service = await serve();
  const { host } = new URL(service.url);
  await visit(browser, service.url, "#/changes", {}, async (page) => {
    await page.getByText("Waiting for the next change.").waitFor();
    await ask(service.url, "add_widget", { widget_sn: "of the old store", widget_name: "", slots: [] });
    await page.getByRole("link", { name: "of the old store" }).waitFor();
    await service.stop();
    await page.getByText("The service does not answer.").waitFor();
    service = await serve({ listen: host });
    await ask(service.url, "add_widget", { widget_sn: "of the new one", widget_name: "", slots: [] });
    await page.getByRole("link", { name: "of the new one" }).waitFor();
  });
  await service.stop();
});

test("the overview reports that the service does not answer, and later that it is back", { skip, timeout: 90_000 }, async () => {
  let service = await serve();
  const { host } = new URL(service.url);
  await visit(browser, service.url, "", {}, async (page) => {
    await page.getByText("ready", { exact: true }).waitFor();
    await page.locator(".health").waitFor();
    await service.stop(true);
    await page.getByText("no answer", { exact: true }).waitFor();
    assert.equal(await page.locator(".chart canvas").count(), 2, "the charts stay");
    await picture(page, "away");
    assert.deepEqual(await faults(page), []);
    service = await serve({ listen: host, folder: service.folder });
    await page.getByText("ready", { exact: true }).waitFor();
    await page.locator(".problem").waitFor({ state: "detached" });
  });
  await service.stop();
});

test("the overview asks again whether the registry is empty, and lets the example be finished", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await visit(browser, service.url, "#/nowhere", {}, async (page) => {
    await page.route("**/widgets?*", (route) => route.abort());
    await go(page, "#/");
    await page.locator(".problem", { hasText: "The service does not answer." }).waitFor();
    await page.unroute("**/widgets?*");
    await page.locator(".problem").waitFor({ state: "detached" });
    let pass;
    const held = new Promise((resolve) => (pass = resolve));
    await page.route("**/rpc/associate_widgets", async (route) => (await held, route.continue()));
    const noticed = page.waitForResponse(async (answer) => answer.url().includes("/widgets?") && (await answer.json()).length > 0);
    await page.getByRole("button", { name: "Make the example" }).click();
    await noticed;
    await shifts(page);
    await page.getByRole("button", { name: "Making it" }).waitFor();
    pass();
    await page.getByText("The example is ready").waitFor();
  });
  await service.stop();
});

for (const [name, options] of [["a phone", PHONE], ["a desktop", {}]]) {
  test(`the overview on ${name} works and its layout does not shift if its figures arrive late`, { skip, timeout: 90_000 }, async () => {
    const service = await serve();
    await ask(service.url, "add_widget", { widget_sn: "PUMP-1", widget_name: "", slots: ["P"] });
    await visit(browser, service.url, "#/nowhere", options, async (page) => {
      // The processor is as slow as an old phone's, so that anything drawn in two steps is painted in between.
      const devtools = await page.context().newCDPSession(page);
      await devtools.send("Emulation.setCPUThrottlingRate", { rate: 6 });
      let tell;
      const told = new Promise((resolve) => (tell = resolve));
      await page.route("**/metrics", async (route) => (await told, route.continue()));
      await go(page, "#/");
      // The charts exist before there is anything to draw.
      await page.waitForFunction(() => document.querySelectorAll(".chart canvas").length === 2);
      assert.deepEqual(await shifts(page), [], "before the figures");
      tell();
      await page.locator(".health").waitFor();
      assert.deepEqual(await shifts(page), [], "with the figures");
      await go(page, "#/widgets");
      await page.getByRole("link", { name: "PUMP-1" }).waitFor();
    });
    await service.stop();
  });
}

test("a screen that breaks says so, and the other screens still work", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await ask(service.url, "add_widget", { widget_sn: "PUMP-1", widget_name: "", slots: ["P"] });
  await visit(browser, service.url, "#/nowhere", { breaks: /null/ }, async (page) => {
    // The service never gives this answer, but a proxy might.
    await page.route("**/widgets?*", (route) => route.fulfill({ json: [null] }));
    await go(page, "#/widgets");
    await page.getByRole("heading", { name: "This screen broke" }).waitFor();
    assert.deepEqual(await faults(page), []);
    await go(page, "#/operations");
    await page.locator("form").first().waitFor();
    assert.equal(await page.getByRole("heading", { name: "This screen broke" }).count(), 0);
    await go(page, "#/widgets");
    await page.getByRole("heading", { name: "This screen broke" }).waitFor();
    await page.unroute("**/widgets?*");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("link", { name: "PUMP-1" }).waitFor();
  });
  await service.stop();
});

test("the overview reports the state of the archive: active, unreachable, and active again", { skip, timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "widgets-console-archive-"));
  const archive = join(folder, "archive");
  const service = await serve({ flags: ["--archive-url", `file://${archive}`, "--archive-interval-ms", "20"] });
  const add = (widget_sn) => ask(service.url, "add_widget", { widget_sn, widget_name: "", slots: ["P"] });
  assert.equal(await add("before"), 204);
  await visit(browser, service.url, "", {}, async (page) => {
    const row = (name) => page.locator(".health > div", { hasText: name });
    await row("Archive").getByText("active").waitFor();
    await row("Archive is behind by").getByText("0 s").waitFor();
    assert.equal(await row("Archive").locator(".bad").count(), 0);
    await picture(page, "archive");
    assert.deepEqual(await faults(page), []);
    // As if the archive's disk were not mounted, except that nothing can be created there.
    renameSync(archive, `${archive}.away`);
    writeFileSync(archive, "");
    assert.equal(await add("meanwhile"), 204, "operations do not wait for the archive");
    await row("Archive").locator(".bad", { hasText: "retrying" }).waitFor({ timeout: 60_000 });
    assert.deepEqual(await faults(page), []);
    await picture(page, "archive-away");
    rmSync(archive);
    renameSync(`${archive}.away`, archive);
    await row("Archive").getByText("active").waitFor({ timeout: 60_000 });
  });
  await service.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("a standby shows its role and its primary, and the primary shows the number of its standbys", { skip, timeout: 120_000 }, async () => {
  const primary = await serve();
  const add = { widget_sn: "copied", widget_name: "", slots: ["P"] };
  assert.equal(await ask(primary.url, "add_widget", add), 204);
  const standby = await serve({ flags: ["--follow", primary.url] });
  const row = (page, name) => page.locator(".health > div", { hasText: name });
  await visit(browser, primary.url, "", {}, async (page) => {
    await row(page, "Standbys").getByText("1", { exact: true }).waitFor();
    await page.getByText("ready", { exact: true }).waitFor();
  });
  await visit(browser, standby.url, "", {}, async (page) => {
    await page.locator(".figure", { hasText: "Service" }).getByText("standby", { exact: true }).waitFor();
    await row(page, "Its primary").getByText("is followed").waitFor();
    await row(page, "Writes").getByText("at its primary").waitFor();
    await page.locator(".figure", { hasText: "Widgets" }).getByText("1", { exact: true }).waitFor();
    await picture(page, "standby");
    assert.deepEqual(await faults(page), []);
    await go(page, "#/operations");
    const note = page.getByRole("note").filter({ hasText: "This is a standby" });
    const link = note.getByRole("link");
    assert.equal(await link.getAttribute("href"), `${primary.url}/console/#/operations`);
    for (const button of await page.locator("form button").all()) assert.ok(await button.isDisabled());
    assert.deepEqual([await shifts(page), await faults(page)], [[], []]);
    await picture(page, "standby-operations");
    await go(page, "#/widget/copied");
    await note.waitFor();
    assert.equal(await page.getByRole("button", { name: /Remove/ }).count(), 0);
    assert.equal(await page.getByRole("link", { name: "Associate" }).count(), 0);
    // The link leads to the same screen on the primary.
    assert.equal(await link.getAttribute("href"), `${primary.url}/console/#/widget/copied`);
    await go(page, "#/");
    await primary.stop();
    await row(page, "Its primary").locator(".bad", { hasText: "does not answer" }).waitFor({ timeout: 60_000 });
    assert.deepEqual(await faults(page), []);
  });
  await standby.stop();
});

test("a page of a standby that is promoted accepts operations without a reload", { skip, timeout: 120_000 }, async () => {
  const primary = await serve();
  const standby = await serve({ flags: ["--follow", primary.url] });
  await visit(browser, standby.url, "#/operations", {}, async (page) => {
    await page.getByRole("note").filter({ hasText: "This is a standby" }).waitFor();
    const form = page.locator("section", { hasText: "Add a widget" }).first();
    await form.getByLabel("Serial number").fill("after the promotion");
    // As if it restarted: no answer does not mean that it was promoted.
    const asked = ["**/rpc/remove_widget?*", "**/ready?role=primary"];
    for (const path of asked) await page.route(path, (route) => route.abort());
    const failed = (path) => page.waitForEvent("requestfailed", (request) => request.url().includes(path));
    await Promise.all([failed("/rpc/"), failed("/ready?")]);
    await shifts(page);
    assert.ok(await form.getByRole("button", { name: "Add a widget" }).isDisabled());
    assert.equal(await page.getByRole("note").count(), 1);
    for (const path of asked) await page.unroute(path);
    await primary.stop();
    const promoted = await fetch(`${standby.url}/replication/promote?address=${encodeURIComponent(standby.url)}`, { method: "POST" });
    assert.equal(promoted.status, 200, await promoted.text());
    await page.getByRole("note").waitFor({ state: "detached" });
    await form.getByRole("button", { name: "Add a widget" }).click();
    await form.getByText("It is registered.").waitFor();
  });
  await standby.stop();
});

test("until the service says what the caller may do, the screens show the problem and offer nothing", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  assert.equal(await ask(service.url, "add_widget", { widget_sn: "PUMP-1", widget_name: "", slots: ["P"] }), 204);
  const [operation, role] = ["**/rpc/remove_widget?*", "**/ready?role=primary"];
  const refusal = (status, code) => ({ status, headers: { "Proxy-Status": `PostgREST; error=${code}` } });
  await visit(browser, service.url, "#/nowhere", {}, async (page) => {
    const retry = page.locator("main .problem").getByRole("button", { name: "Try again" });
    // A hidden page does not ask again by itself.
    await page.evaluate(() => Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true }));
    for (const [path, answer] of [
      [operation, null],
      [operation, { status: 200, contentType: "text/html", body: "<h1>Log in</h1>" }],
      [operation, { status: 502, contentType: "text/html", body: "<h1>Bad Gateway</h1>" }],
      [operation, refusal(429, "WG429")],
      [operation, refusal(503, "WG503")],
      [role, null],
      [role, refusal(503, "WG503")],
    ]) {
      const what = `${path}: ${JSON.stringify(answer)}`;
      await page.route(path, (route) => (answer ? route.fulfill(answer) : route.abort()));
      await go(page, "#/operations");
      await retry.waitFor();
      assert.equal(await page.locator("form button:enabled").count(), 0, what);
      await go(page, "#/widget/PUMP-1");
      await page.locator(".slot-rows li").waitFor();
      await retry.waitFor();
      assert.equal(await page.getByRole("button", { name: /Remove/ }).count(), 0, what);
      await page.unroute(path);
      await retry.click();
      await page.getByRole("button", { name: "Remove this widget…" }).waitFor();
      assert.equal(await page.locator(".problem").count(), 0, what);
    }
    await page.route(operation, (route) => route.abort());
    await go(page, "#/operations");
    await retry.waitFor();
    assert.deepEqual(await faults(page), []);
    await page.unroute(operation);
    await page.evaluate(() => delete document.visibilityState);
    await page.locator("form button:enabled").first().waitFor();
  });
  await service.stop();
});

test("opening screens causes no requests that the overview counts as refused", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await visit(browser, service.url, "", {}, async (page) => {
    await page.getByRole("button", { name: "Make the example" }).waitFor();
    await go(page, "#/operations");
    await page.locator("form button:enabled").first().waitFor();
    const metrics = await (await fetch(`${service.url}/metrics`)).text();
    const refused = [...metrics.matchAll(/^widgets_requests_total\{.*outcome="(.*)"\} (?!0$)(.*)$/gm)].filter(([, outcome]) => outcome !== "ok");
    assert.deepEqual(refused.map(([line]) => line), []);
  });
  await service.stop();
});

test("an operation whose response was lost can be sent again, and is applied once", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  await visit(browser, service.url, "#/operations", {}, async (page) => {
    let lost = 0;
    await page.route("**/rpc/add_widget", async (route) => {
      if (lost > 0) return route.continue();
      lost += 1;
      // The request reaches the service, but the answer is lost.
      assert.equal((await route.fetch()).status(), 204);
      await route.abort("connectionreset");
    });
    const add = page.locator("section", { hasText: "Add a widget" }).first();
    await add.getByLabel("Serial number").fill("ONCE");
    await add.getByRole("button", { name: "Add a widget" }).click();
    await add.getByText("The service does not answer.").waitFor();
    await add.getByRole("button", { name: "Try again" }).click();
    await add.getByText("It is registered.").waitFor();
    assert.equal(lost, 1);
  });
  await service.stop();
});

test("an operation whose outcome is unknown is not called done, and can be sent again with its key", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  const html = (status) => ({ status, contentType: "text/html", body: "<h1>A proxy</h1>" });
  const answers = [
    [html(200), "it is unknown whether the operation was applied"],
    [html(502), "The answer is 502"],
    [html(504), "The answer is 504"],
    [{ status: 409, json: { code: "WG409", message: "it is in progress", details: null, hint: null } }, "The same operation is still in progress."],
  ];
  await visit(browser, service.url, "#/operations", {}, async (page) => {
    const keys = [];
    await page.route("**/rpc/add_widget", (route) => {
      keys.push(route.request().headers()["idempotency-key"]);
      const [answer] = answers[keys.length - 1] ?? [];
      return answer ? route.fulfill(answer) : route.continue();
    });
    const add = page.locator("section", { hasText: "Add a widget" }).first();
    await add.getByLabel("Serial number").fill("ONCE");
    await add.getByRole("button", { name: "Add a widget" }).click();
    for (const [, text] of answers) {
      await add.getByText(text).waitFor();
      assert.equal(await add.getByText("It is registered.").count(), 0);
      await add.getByRole("button", { name: "Try again" }).click();
    }
    await add.getByText("It is registered.").waitFor();
    assert.equal(keys.length, answers.length + 1);
    assert.equal(new Set(keys).size, 1, `${keys}`);
  });
  await service.stop();
});

test("the API page follows the browser's dark mode, and is no wider than a phone", { skip, timeout: 90_000 }, async () => {
  const service = await serve();
  for (const [name, options] of [["phone", PHONE], ["desktop", { viewport: { width: 1280, height: 900 } }]]) {
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ colorScheme, ...options });
      const page = await context.newPage();
      await page.goto(service.url);
      await page.locator(".opblock-tag").first().waitFor();
      await picture(page, `${name}-${colorScheme}-api`);
      // Expand as much as possible.
      await page.locator("#operations-operations-add_widget .opblock-summary").click();
      await page.locator("#operations-operations-add_widget button.execute").click();
      await page.locator("#operations-operations-add_widget .live-responses-table").waitFor();
      await picture(page, `${name}-${colorScheme}-api-open`);
      assert.ok((await overhang(page)) <= 0, `${name}, ${colorScheme}: wider than the window`);
      const [ground, ink] = await page.evaluate(() => {
        const light = (colour) => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
        return [light(getComputedStyle(document.documentElement).backgroundColor), light(getComputedStyle(document.querySelector(".opblock-description-wrapper, .info p")).color)];
      });
      assert.ok(colorScheme === "dark" ? ground < ink : ground > ink, `${colorScheme}: ${ground}, ${ink}`);
      await context.close();
    }
  }
  await service.stop();
});

test("the console works behind nginx as the recipes configure it, at the root and under a path", { skip, timeout: 120_000 }, async () => {
  const service = await serve();
  const proxy = await nginx(service);
  const awkward = "a/b?c#d%2Fe";
  assert.equal(await ask(proxy.url, "add_widget", { widget_sn: awkward, widget_name: "", slots: ["P"] }), 204);
  for (const widget_sn of ["PUMP-1", "TANK-1"]) {
    assert.equal(await ask(proxy.under, "add_widget", { widget_sn, widget_name: "", slots: ["P"] }), 204);
  }
  assert.equal((await fetch(`${proxy.under}/metrics`)).status, 404);
  for (const url of [proxy.url, proxy.under]) {
    await visit(browser, url, "", {}, async (page) => {
      await page.getByText("which the proxy in front of the service does not pass on").waitFor();
      assert.deepEqual(await faults(page), []);
      for (const [screen, path, sign] of SCREENS.filter(([screen]) => screen !== "overview")) {
        await go(page, `#/${path}`);
        await page.locator(sign).first().waitFor({ timeout: 15_000 }).catch(() => assert.fail(`${url}: ${screen}`));
      }
      await go(page, `#/widget/${encodeURIComponent(awkward)}`);
      await page.locator(".slot-rows").waitFor();
      await go(page, `#/near/${encodeURIComponent(awkward)}`);
      await page.locator(".node").waitFor();
      await go(page, "#/operations");
      const section = page.locator("section", { hasText: "Associate two widgets" }).first();
      await section.getByLabel("One widget").fill("PUMP-1");
      await section.getByLabel("The other widget").fill("PUMP-1");
      await section.getByRole("button", { name: "Associate" }).click();
      await section.getByText("A widget cannot be associated with itself.").waitFor();
      await section.getByText("As a shell command").click();
      assert.ok((await section.locator("pre").textContent()).includes(`'${url}/rpc/associate_widgets'`));
      // To the API page and back.
      await page.getByRole("link", { name: "API", exact: true }).click();
      await page.waitForURL(`${url}/`);
      await page.getByRole("link", { name: /Console/ }).click();
      await page.waitForURL(`${url}/console/`);
      await page.getByRole("heading", { name: "Overview" }).waitFor();
    });
  }
  // Addresses as a person types them.
  for (const [typed, end] of [[`${proxy.under}`, `${proxy.under}/`], [`${proxy.under}/console`, `${proxy.under}/console/`], [`${proxy.url}/console`, `${proxy.url}/console/`]]) {
    assert.equal((await fetch(typed, { headers: { Accept: "text/html" } })).url, end, typed);
  }
  await proxy.stop();
  await service.stop();
});
