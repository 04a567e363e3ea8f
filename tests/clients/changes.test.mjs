// Tests that a page that follows the changes with EventSource resumes after restarts of the service, without code for that.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { launch, skip } from "./browser.mjs";

/// Starts a service for this test, and returns it and where it listens.
async function start(data, listen, pages) {
  const more = ["--cors-origins", pages];
  const child = spawn(process.env.WIDGETS_BINARY, ["serve", "--listen", listen, "--data-dir", data, ...more], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = line.match(/^widgets listens on (.*)$/)?.[1];
    if (url) return { child, url };
  }
  throw new Error("the service did not start");
}

async function kill({ child }) {
  child.kill("SIGKILL");
  await once(child, "exit");
}

async function add(url, widget_sn) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ widget_sn, widget_name: "", slots: ["P"] });
  const { status } = await fetch(`${url}/rpc/add_widget`, { method: "POST", headers, body });
  assert.equal(status, 204);
}

test("after kills of the service, EventSource resumes without a gap and without duplicates", { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), "widgets-changes-"));
  const data = join(directory, "data");
  const page = (_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><title>page</title>");
  const pages = createServer(page);
  await new Promise((listening) => pages.listen(0, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const browser = await launch();
  let service = await start(data, "127.0.0.1:0", origin);
  try {
    const { url } = service;
    const tab = await browser.newPage();
    await tab.goto(origin);
    await tab.evaluate((url) => {
      globalThis.told = [];
      const source = new EventSource(`${url}/changes`);
      source.addEventListener("add_widget", ({ data, lastEventId }) => {
        globalThis.told.push([JSON.parse(data).widget_sn, lastEventId]);
      });
    }, url);
    const told = (count) => tab.waitForFunction((count) => globalThis.told.length >= count, count, { timeout: 30000 });
    const expected = [];
    for (let life = 0; life < 4; life++) {
      for (let number = 0; number < 20; number++) {
        expected.push(`${life}-${number}`);
        await add(url, expected.at(-1));
      }
      // In every other round, the page may have received only a part.
      if (life % 2 === 0) await told(expected.length);
      await kill(service);
      service = await start(data, new URL(url).host, origin);
    }
    expected.push("last");
    await add(url, "last");
    await told(expected.length);
    const seen = await tab.evaluate(() => globalThis.told);
    assert.deepEqual(seen.map(([serialNumber]) => serialNumber), expected);
    assert.deepEqual(seen.map(([, position]) => position), seen.map(([, position]) => position).sort());
  } finally {
    await kill(service);
    await browser.close();
    pages.closeAllConnections();
    pages.close();
    await rm(directory, { recursive: true });
  }
});
