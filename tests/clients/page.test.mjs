// Tests the interactive page in a real browser against a running service at WIDGETS_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, skip } from "./browser.mjs";

const url = process.env.WIDGETS_URL;

test("the page lists the operations and sends a request", { skip, timeout: 120_000 }, async () => {
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 1400 } });
    const requests = [];
    const problems = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    await page.goto(url);
    await page.locator(".opblock-tag").first().waitFor();
    const operations = await page.locator(".opblock-summary-path").allTextContents();
    const paths = operations.map((text) => text.replaceAll("\u200b", ""));
    for (const path of ["/rpc/add_widget", "/rpc/remove_widget", "/rpc/associate_widgets", "/rpc/remove_association", "/widgets/{serial_number}", "/", "/live", "/ready", "/metrics"]) {
      assert.ok(paths.includes(path), `${path} is listed`);
    }
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/page.png` });

    // Add the widget of the first example; the second time it must be refused.
    const add = page.locator("#operations-operations-add_widget");
    await add.locator(".opblock-summary").click();
    const execute = add.locator("button.execute");
    await execute.waitFor();
    const body = JSON.stringify({ widget_sn: "page", widget_name: "A", slots: ["P", "R"] });
    await add.locator("textarea").first().fill(body);
    for (const status of ["204", "409"]) {
      await execute.click();
      const live = add.locator(".live-responses-table .response .response-col_status");
      await live.filter({ hasText: status }).first().waitFor();
    }
    const answer = await add.locator(".live-responses-table").textContent();
    assert.match(answer, /Key \(serial_number\)=\(page\) already exists\./);
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/request.png`, fullPage: true });

    const elsewhere = requests.filter((request) => !request.startsWith(url) && !request.startsWith("data:"));
    assert.deepEqual(elsewhere, [], "nothing is loaded from elsewhere");
    // The browser reports the expected refusal as well.
    const unexpected = problems.filter((problem) => !problem.includes("409 (Conflict)"));
    assert.deepEqual(unexpected, []);
  } finally {
    await browser.close();
  }
});
