// The real binary on a free port with a store of its own, and a browser that looks at it.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = browsers.find((path) => path && existsSync(path));
export const skip = executablePath ? false : "no Chromium found: install it, or name it in CHROMIUM";

export async function serve(listen = "127.0.0.1:0", arguments_ = [], folder = mkdtempSync(join(tmpdir(), "widgets-console-"))) {
  const log = openSync(join(folder, "log"), "a");
  const flags = ["serve", "--listen", listen, "--data-dir", join(folder, "data"), ...arguments_];
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("WIDGETS_")));
  const child = spawn(process.env.WIDGETS_BINARY, flags, { stdio: ["ignore", "pipe", log], env: environment, cwd: folder });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stdout).on("line", (line) => {
      const match = /^widgets listens on (.*)$/.exec(line);
      if (match) resolve(match[1]);
    });
    exited.then((code) => reject(new Error(`the service ended with ${code}: see ${folder}/log`)));
  });
  return {
    url,
    folder,
    async stop(keep = false) {
      child.kill("SIGTERM");
      await exited;
      if (!keep) rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function browse() {
  return chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export async function ask(url, operation, body) {
  const response = await fetch(`${url}/rpc/${operation}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return response.status;
}
