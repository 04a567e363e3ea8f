// Tests what web pages in a real browser can do to a service without authentication: pages of another site, a page
// whose host name resolves to this machine, and pages of the same site. Also tests the service's own page behind a path.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { test } from "node:test";
import { launch, skip } from "./browser.mjs";

const url = process.env.WIDGETS_URL;
const { port } = new URL(url);

/// Runs a server on a free port until `work` is done.
async function serving(handler, work) {
  const server = createServer(handler);
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  try {
    return await work(server.address().port);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const page = (_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><title>page</title>");

const widget = (widget_sn) => ({ widget_sn, widget_name: "", slots: [] });

async function exists(serialNumber) {
  const { status } = await fetch(`${url}/widgets/${serialNumber}`);
  assert.ok([200, 404].includes(status), `${status}`);
  return status === 200;
}

/// The ways in which a page can send something to `target`. Each returns the status that the page can read, or "unread".
const attempts = {
  async cors(target, body) {
    const headers = { "Content-Type": "application/json" };
    return (await fetch(`${target}/rpc/add_widget`, { method: "POST", headers, body })).status;
  },
  async noCors(target, body) {
    await fetch(`${target}/rpc/add_widget`, { method: "POST", mode: "no-cors", body: new Blob([body]) });
    return "unread";
  },
  async beacon(target, body) {
    navigator.sendBeacon(`${target}/rpc/add_widget`, new Blob([body]));
    return "unread";
  },
  async plainText(target, body) {
    return (await fetch(`${target}/rpc/add_widget`, { method: "POST", body })).status;
  },
  async lookup(target) {
    return (await fetch(`${target}/widgets/seen`)).status;
  },
};

/// Makes each attempt from a page at `from`, and returns the outcomes ("refused" if the browser blocks the attempt)
/// and which attempts added a widget.
async function attempt(browser, from, target, prefix) {
  const tab = await browser.newPage();
  const outcomes = {};
  try {
    await tab.goto(from);
    for (const [how, send] of Object.entries(attempts)) {
      const body = JSON.stringify(widget(`${prefix}-${how}`));
      const sent = tab.evaluate(`(${send.toString().replace(/^async \w+/, "async function")})(${JSON.stringify(target)}, ${JSON.stringify(body)})`);
      outcomes[how] = await sent.catch(() => "refused");
      // Once this later request has been answered, the attempt has arrived as well.
      await tab.evaluate(`fetch(${JSON.stringify(`${target}/live`)}, { mode: "no-cors" }).then(() => 0)`);
    }
  } finally {
    await tab.close();
  }
  const written = [];
  for (const how of Object.keys(attempts)) if (await exists(`${prefix}-${how}`)) written.push(how);
  return { outcomes, written };
}

test("pages of another site or of another host name can neither write nor read", { skip, timeout: 120_000 }, async () => {
  const add = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(widget("seen")) };
  assert.equal((await fetch(`${url}/rpc/add_widget`, add)).status, 204);
  await serving(page, async (evil) => {
    const browser = await launch("--host-resolver-rules=MAP *.example 127.0.0.1");
    try {
      // A page of another site asks the service by its address.
      const elsewhere = await attempt(browser, `http://evil.example:${evil}/`, url, "elsewhere");
      assert.deepEqual(elsewhere.written, []);
      assert.deepEqual(elsewhere.outcomes, { cors: "refused", noCors: "unread", beacon: "unread", plainText: 403, lookup: 403 });
      // A page of this machine under another of its names.
      const { outcomes, written } = await attempt(browser, `http://localhost:${evil}/`, url, "localhost");
      assert.deepEqual(written, []);
      assert.equal(outcomes.lookup, 403);
      // A page of a site whose name now resolves to this machine (DNS rebinding).
      const rebound = `http://evil.example:${port}`;
      const tab = await browser.newPage();
      const answer = await tab.goto(`${rebound}/live`);
      assert.equal(answer.status(), 200);
      await tab.close();
      const of = await attempt(browser, `${rebound}/live`, rebound, "rebound");
      assert.deepEqual(of.written, []);
      assert.deepEqual([of.outcomes.cors, of.outcomes.plainText, of.outcomes.lookup], [421, 421, 421]);
    } finally {
      await browser.close();
    }
  });
});

test("a page of the same host can write, if its request states its content type", { skip, timeout: 120_000 }, async () => {
  await serving(page, async (own) => {
    const browser = await launch();
    try {
      const { outcomes, written } = await attempt(browser, `http://127.0.0.1:${own}/`, url, "own");
      assert.deepEqual(written, ["cors"], "a request without a preflight changes nothing");
      assert.deepEqual([outcomes.cors, outcomes.plainText, outcomes.lookup], [204, 404, 200]);
    } finally {
      await browser.close();
    }
  });
});

test("the page works behind a path", { skip, timeout: 120_000 }, async () => {
  // A proxy that keeps `Host` and strips the path.
  const prefix = "/some/registry";
  const proxied = (asked, answer) => {
    if (!asked.url.startsWith(`${prefix}/`)) return answer.writeHead(404).end();
    const { method, headers } = asked;
    const onwards = request(url, { method, headers, path: asked.url.slice(prefix.length) }, (answered) => {
      answer.writeHead(answered.statusCode, answered.headers);
      answered.pipe(answer);
    });
    asked.pipe(onwards);
  };
  await serving(proxied, async (front) => {
    const browser = await launch();
    try {
      const tab = await browser.newPage();
      const missing = [];
      tab.on("response", (answer) => answer.status() === 404 && missing.push(answer.url()));
      await tab.goto(`http://127.0.0.1:${front}${prefix}/`);
      const add = tab.locator("#operations-operations-add_widget");
      await add.locator(".opblock-summary").click();
      await add.locator("textarea").first().fill(JSON.stringify(widget("behind-a-path")));
      await add.locator("button.execute").click();
      const status = add.locator(".live-responses-table .response .response-col_status");
      await status.filter({ hasText: "204" }).first().waitFor();
      assert.deepEqual(missing, []);
      assert.ok(await exists("behind-a-path"));
    } finally {
      await browser.close();
    }
  });
});
