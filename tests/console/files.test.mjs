// Tests the files that the binary embeds: their size, their licences, and that every code and metric that they name exists.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const folder = process.env.FILES;
const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");

test("the files are small", (t) => {
  const bytes = readdirSync(folder).reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name))).length, 0);
  t.diagnostic(`${Math.round(bytes / 1024)} KiB compressed in all`);
  assert.ok(bytes <= 250 * 1024, `${bytes} bytes compressed`);
});

test("the licences of the embedded packages are ones that deny.toml allows", () => {
  const lock = JSON.parse(read("package-lock.json"));
  const allowed = /^allow = \[([^\]]*)\]/m.exec(readFileSync(process.env.DENY, "utf8"))[1].match(/[^"\s,]+(?=")/g);
  assert.ok(allowed.includes("MIT"), `deny.toml allows ${allowed}`);
  const shipped = Object.entries(lock.packages).filter(([path, { dev }]) => path && !dev);
  assert.ok(shipped.length >= 3);
  for (const [path, { license, integrity }] of shipped) {
    assert.ok(allowed.includes(license), `${path}: ${license} is not among ${allowed} of deny.toml`);
    assert.match(integrity, /^sha512-/, `${path} is pinned by its hash`);
  }
});

test("every error code that the console explains exists in the service", () => {
  const codes = new Set(readFileSync(process.env.CODES, "utf8").match(/(?<==\s")\w+(?=",)/g));
  assert.ok(codes.size > 20, `${codes.size} codes`);
  const explained = [...read("src/explain.ts").matchAll(/^ {2}"?(\w{5,8})"?: "/gm)].map(([, code]) => code);
  assert.ok(explained.length > 20, `${explained.length} explanations`);
  assert.deepEqual(explained.filter((code) => !codes.has(code)), []);
});

test("every metric that the console shows is documented", () => {
  const documented = readFileSync(process.env.OPERATIONS, "utf8");
  const shown = ["health.tsx", "overview.tsx"].flatMap((name) => read(`src/${name}`).match(/\b(widgets|process)_[a-z_]+\w/g));
  assert.ok(shown.length > 10);
  for (const name of new Set(shown)) assert.ok(documented.includes(`\`${name}`), `${name} is in no table of docs/operations.md`);
});

test("the embedded files contain the texts of the licences", () => {
  const licences = readFileSync(join(folder, "licences.md"), "utf8");
  for (const name of ["preact", "uplot", "d3-force"]) assert.match(licences, new RegExp(`## ${name}`), name);
});
