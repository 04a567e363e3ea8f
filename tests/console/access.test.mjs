// Tests what each role's token permits, and what the page itself may do in a browser.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { SCREENS, faults, go, picture, shifts, visit } from "./page.mjs";
import { SECRET, ask, browse, serve, skip, tokenOf } from "./service.mjs";

let service;
let browser;
before(async () => {
  if (skip) return;
  [service, browser] = await Promise.all([serve({ environment: { WIDGETS_JWT_SECRET: SECRET } }), browse()]);
  const admin = tokenOf("admin", "ann");
  for (const widget_sn of ["PUMP-1", "TANK-1"]) {
    assert.equal(await ask(service.url, "add_widget", { widget_sn, widget_name: "", slots: ["P", "R"] }, admin), 204);
  }
  assert.equal(await ask(service.url, "associate_widgets", { widget1_sn: "PUMP-1", widget2_sn: "TANK-1", port: "P" }, admin), 204);
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

const look = (path, work, options = {}) => visit(browser, service.url, path, options, work);
const stored = (page) => page.evaluate(() => sessionStorage.getItem("widgets.token"));

test("without a token, nothing is shown; an entered token stays in its tab until it is forgotten", { skip, timeout: 90_000 }, () => {
  const token = tokenOf("reader");
  return look("#/widgets", async (page) => {
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.getByText("The service requires a token.").waitFor();
    assert.equal(await page.locator("tbody tr").count(), 0);
    await picture(page, "token");
    assert.deepEqual(await faults(page), []);
    await page.getByLabel("Token", { exact: true }).fill("nonsense");
    await page.getByRole("button", { name: "Use it in this tab" }).click();
    await page.getByText("The token is not accepted.").waitFor();
    await page.getByLabel("Token", { exact: true }).fill(tokenOf("nobody"));
    await page.getByRole("button", { name: "Use it in this tab" }).click();
    await page.getByText("The service does not know the role of this token.").waitFor();
    await page.getByLabel("Token", { exact: true }).fill(` ${token}\n`);
    await page.getByRole("button", { name: "Use it in this tab" }).click();
    await page.getByRole("link", { name: "PUMP-1" }).first().waitFor();
    await page.reload();
    await page.getByRole("link", { name: "PUMP-1" }).first().waitFor();
    assert.equal(await stored(page), token);
    assert.ok(!page.url().includes(token) && !(await page.content()).includes(token));
    assert.deepEqual(asked.filter((url) => url.includes(token)), []);
    assert.deepEqual(await page.evaluate(() => [document.cookie, localStorage.length]), ["", 0]);
    const other = await page.context().newPage();
    await other.goto(`${service.url}/console/#/widgets`);
    await other.getByText("The service requires a token.").waitFor();
    await other.close();
    await page.getByRole("button", { name: "Token: set" }).click();
    await page.getByRole("button", { name: "Forget it" }).click();
    await page.getByText("The service requires a token.").waitFor();
    assert.equal(await stored(page), null);
  });
});

test("every screen asks for a token, and continues when one is entered", { skip, timeout: 120_000 }, async () => {
  for (const [screen, path, sign] of SCREENS) {
    await look(`#/${path}`, async (page) => {
      await page.getByLabel("Token", { exact: true }).first().waitFor();
      assert.deepEqual(await faults(page), [], screen);
      assert.equal(await page.getByLabel("Token", { exact: true }).count(), 1, `${screen}: one place to enter it`);
      await page.getByLabel("Token", { exact: true }).fill(tokenOf("admin"));
      await page.getByRole("button", { name: "Use it in this tab" }).click();
      await page.locator(sign).first().waitFor();
      await page.getByLabel("Token", { exact: true }).waitFor({ state: "detached" });
    });
  }
});

test("a reader sees every screen, and no control for an operation that would be refused", { skip, timeout: 90_000 }, () =>
  look("", async (page) => {
    await page.getByText("which the admin role may read").waitFor();
    await page.locator(".figure", { hasText: "Widgets" }).getByText("2", { exact: true }).waitFor();
    assert.deepEqual(await faults(page), []);
    await picture(page, "reader");
    await go(page, "#/operations");
    await page.getByText("You may only read").waitFor();
    for (const button of await page.locator("form button").all()) assert.ok(await button.isDisabled());
    assert.deepEqual([await shifts(page), await faults(page)], [[], []]);
    await go(page, "#/widget/PUMP-1");
    await page.getByText("You may only read").waitFor();
    assert.equal(await page.getByRole("button", { name: /Remove/ }).count(), 0);
    assert.equal(await page.getByRole("link", { name: "Associate" }).count(), 0);
    assert.deepEqual([await shifts(page), await faults(page)], [[], []]);
    await go(page, "#/near/PUMP-1");
    await page.locator(".node").first().waitFor();
    await go(page, "#/changes?widget_sn=PUMP-1");
    await page.locator(".changes .by").first().waitFor();
    assert.equal(await page.locator(".changes .by").first().textContent(), "ann");
  }, { token: tokenOf("reader") }));

test("a writer makes changes, and sees who made them", { skip, timeout: 90_000 }, () =>
  look("#/operations", async (page) => {
    const add = page.locator("section", { hasText: "Add a widget" }).first();
    await add.getByLabel("Serial number").fill("BY-WRITER");
    await add.getByRole("button", { name: "Add a widget" }).click();
    await add.getByText("It is registered.").waitFor();
    await add.getByText("As a shell command").click();
    assert.match(await add.locator("pre").textContent(), /-H "Authorization: Bearer \$WIDGETS_TOKEN"/);
    await add.getByRole("link", { name: "BY-WRITER" }).click();
    await page.locator(".changes .by", { hasText: "wanda" }).waitFor();
    await page.getByRole("button", { name: "Remove this widget…" }).click();
    await page.getByText("It has no associations.").waitFor();
    await page.getByRole("button", { name: "Remove it" }).click();
    await page.getByText("It was removed.").waitFor();
    await page.locator(".changes .remove_widget").waitFor();
  }, { token: tokenOf("writer", "wanda") }));

test("another token, entered because a removal was refused, removes nothing by itself", { skip, timeout: 90_000 }, () =>
  look("#/widget/PUMP-1", async (page) => {
    await page.getByRole("button", { name: "Remove this widget…" }).click();
    const confirmation = page.getByLabel("Type the serial number");
    await confirmation.fill("PUMP-1");
    // As if the token had expired since the page was opened.
    await page.evaluate(() => sessionStorage.setItem("widgets.token", "expired"));
    await page.getByRole("button", { name: "Remove it" }).click();
    await page.getByText("The token is not accepted.").waitFor();
    assert.equal(await page.locator("form form").count(), 0, "no form contains another one");
    assert.deepEqual(await faults(page), []);
    await confirmation.fill("");
    const asked = [];
    page.on("request", (request) => asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
    // Everything is loaded again with the token, after all that entering it did at once.
    const again = page.waitForResponse((answer) => answer.url().endsWith("/widgets/PUMP-1") && answer.ok());
    await page.getByLabel("Token", { exact: true }).fill(tokenOf("admin"));
    await page.getByRole("button", { name: "Use it in this tab" }).click();
    await again;
    assert.deepEqual(asked.filter((request) => request === "POST /rpc/remove_widget"), []);
    await page.locator(".problem").waitFor({ state: "detached" });
    assert.ok(await page.getByRole("button", { name: "Remove it" }).isDisabled());
    const headers = { Authorization: `Bearer ${tokenOf("admin")}` };
    assert.equal((await fetch(`${service.url}/widgets/PUMP-1`, { headers })).status, 200);
  }, { token: tokenOf("admin") }));

test("callers without a token who may read are shown everything, and offered no operation", { skip, timeout: 90_000 }, async () => {
  const open = await serve({ environment: { WIDGETS_JWT_SECRET: SECRET, WIDGETS_ANONYMOUS_ROLE: "reader" } });
  assert.equal(await ask(open.url, "add_widget", { widget_sn: "PUMP-1", widget_name: "", slots: ["P"] }, tokenOf("admin")), 204);
  await visit(browser, open.url, "#/widget/PUMP-1", {}, async (page) => {
    await page.locator(".slot-rows li").waitFor();
    await page.getByText("You may only read").waitFor();
    assert.equal(await page.getByRole("button", { name: /Remove/ }).count(), 0);
    assert.deepEqual(await faults(page), []);
    await go(page, "#/operations");
    await page.getByText("You may only read").waitFor();
    assert.equal(await page.locator("form button:enabled").count(), 0);
  });
  await open.stop();
});

test("an admin sees the live figures, until the token is replaced by one without that role", { skip, timeout: 90_000 }, () =>
  look("", async (page) => {
    await page.locator(".health").waitFor();
    await page.evaluate((token) => {
      sessionStorage.setItem("widgets.token", token);
      dispatchEvent(new Event("token"));
    }, tokenOf("reader"));
    await page.getByText("which the admin role may read").waitFor();
    assert.equal(await page.locator(".health").count(), 0);
  }, { token: tokenOf("admin") }));

test("an empty registry is reported to a reader, without the button for the example, until the first widget comes", { skip, timeout: 90_000 }, async () => {
  const empty = await serve({ environment: { WIDGETS_JWT_SECRET: SECRET } });
  await visit(browser, empty.url, "#/nowhere", { token: tokenOf("reader") }, async (page) => {
    await page.route("**/widgets?*", (route) => route.abort());
    await go(page, "#/");
    await page.getByText("which the admin role may read").waitFor();
    await page.locator(".problem", { hasText: "The service does not answer." }).waitFor();
    assert.deepEqual(await faults(page), []);
    await page.unroute("**/widgets?*");
    await page.getByText("The registry is empty").waitFor();
    await page.locator(".problem").waitFor({ state: "detached" });
    await page.getByText("You may only read").waitFor();
    assert.equal(await page.getByRole("button", { name: "Make the example" }).count(), 0);
    assert.deepEqual(await faults(page), []);
    assert.equal(await ask(empty.url, "add_widget", { widget_sn: "FIRST", widget_name: "", slots: [] }, tokenOf("admin")), 204);
    await page.getByText("The registry is empty").waitFor({ state: "detached" });
    await page.locator(".figure", { hasText: "Widgets" }).getByText("1", { exact: true }).waitFor();
  });
  await empty.stop();
});

test("the content security policy permits what the page needs, and nothing else", { skip, timeout: 60_000 }, async () => {
  const answer = await fetch(`${service.url}/console/`);
  const policy = Object.fromEntries(answer.headers.get("content-security-policy").split(";").map((part) => part.trim().split(/ (.*)/s)));
  assert.deepEqual(policy, {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
  });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${service.url}/console/`);
  const violated = await page.evaluate(async () => {
    const seen = [];
    addEventListener("securitypolicyviolation", ({ effectiveDirective }) => seen.push(effectiveDirective));
    const script = document.createElement("script");
    script.textContent = "globalThis.ran = 1";
    document.body.append(script);
    document.body.setAttribute("onclick", "globalThis.ran = 1");
    document.body.click();
    const style = document.createElement("style");
    style.textContent = "body { color: red }";
    document.head.append(style);
    await fetch("https://elsewhere.example/").catch(() => {});
    await new Promise((later) => setTimeout(later));
    return [globalThis.ran, [...new Set(seen)].sort()];
  });
  assert.deepEqual(violated, [undefined, ["connect-src", "script-src-attr", "script-src-elem", "style-src-elem"]]);
  // A page of the same site that embeds the console, in order to trick a user into clicking there.
  const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end(`<!doctype html><iframe src="${service.url}/console/"></iframe>`));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => document.querySelector("iframe").contentDocument === null);
  assert.match(page.frames()[1].url(), /^chrome-error:/);
  await context.close();
  server.closeAllConnections();
  server.close();
});
