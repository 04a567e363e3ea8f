// The browser for the tests: Chromium, if it is installed.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = browsers.find((path) => path && existsSync(path));

/// Why tests in a browser must be skipped, or false.
export const skip = executablePath ? false : "no Chromium found: install it, or name it in CHROMIUM";

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const launch = (...args) => chromium.launch({ executablePath, args: [...quiet, ...args] });
