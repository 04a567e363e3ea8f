// The browser of the tests: Chromium, where there is one.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = browsers.find((path) => path && existsSync(path));

/// Why tests in a browser cannot be run, or false.
export const skip = executablePath ? false : "no Chromium found: install it, or name it in CHROMIUM";

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const launch = (...args) => chromium.launch({ executablePath, args: [...quiet, ...args] });
