// Helpers for the tests of the console: the real binary with a new store, PostgreSQL, nginx, tokens, and a browser.
// Every server listens on a free port, keeps its files in a temporary folder, and ends with the test.
import { spawn, spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { chmodSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = browsers.find((path) => path && existsSync(path));
export const skip = executablePath ? false : "no Chromium found: install it, or name it in CHROMIUM";

/** The secret that signs the tokens. */
export const SECRET = "console-tests-xK7vQ2mW9pL4sT8nB3fH6jD1";

/** The running processes. They end with the test, even if it fails before it has stopped them. */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/**
 * Starts a process and waits until it is up: when it has printed a `line`, whose match is returned as `found`, or when
 * `up` returns true. `stop` ends it with `signal` and waits for its end.
 */
async function start(command, flags, { line, up, signal = "SIGTERM", log, ...options }) {
  const child = spawn(command, flags, { stdio: ["ignore", "pipe", openSync(log, "a")], ...options });
  running.add(child);
  const exited = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  let ended = false;
  exited.then(() => (ended = running.delete(child)));
  const found = await new Promise((resolve, reject) => {
    createInterface(child.stdout).on("line", (text) => line?.test(text) && resolve(line.exec(text)));
    exited.then((code) => reject(new Error(`${command} ended (${code}): ${readFileSync(log, "utf8").slice(-2000)}`)));
    const look = () => (up() ? resolve(null) : ended || setTimeout(look, 50));
    if (up) look();
  });
  return {
    found,
    async stop() {
      child.kill(signal);
      await exited;
    },
  };
}

export async function serve({ listen = "127.0.0.1:0", flags = [], folder = mkdtempSync(join(tmpdir(), "widgets-console-")), environment = {}, data = join(folder, "data") } = {}) {
  const arguments_ = ["serve", "--listen", listen, "--data-dir", data, ...flags];
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("WIDGETS_")));
  const service = await start(process.env.WIDGETS_BINARY, arguments_, {
    // The service tells a person to open the console.
    line: /^open (.*)\/console\/ to look into it/,
    log: join(folder, "log"),
    env: { ...own, ...environment },
    cwd: folder,
  });
  return {
    url: service.found[1],
    folder,
    async stop(keep = false) {
      await service.stop();
      if (!keep) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Returns a token for this role, made without the service's own code. */
export function tokenOf(role, subject = role) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ role, sub: subject })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

async function freePort() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

function run(command, flags, options = {}) {
  const { status, stderr, error } = spawnSync(command, flags, { encoding: "utf8", ...options });
  if (status !== 0) throw new Error(`${command} ${flags.join(" ")}: ${error ?? stderr}`);
}

/** Starts PostgreSQL with an empty, migrated database: as `postgres` if we are root, because it refuses to run as root. */
export async function postgres() {
  const versions = readdirSync("/usr/lib/postgresql").sort((one, other) => other - one);
  const binary = (name) => join("/usr/lib/postgresql", versions[0], "bin", name);
  const folder = mkdtempSync(join(tmpdir(), "widgets-console-postgres-"));
  const port = await freePort();
  const root = process.getuid() === 0;
  if (root) run("chown", ["postgres", folder]);
  const as = (command, flags) => (root ? ["setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", command, ...flags]] : [command, flags]);
  run(...as(binary("initdb"), ["-D", join(folder, "data"), "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]), { cwd: folder });
  const flags = ["-D", join(folder, "data"), "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", `port=${port}`, "-c", `unix_socket_directories=${folder}`, "-c", "logging_collector=off", "-c", "max_connections=40"];
  const [command, all] = as("/bin/sh", ["-c", 'exec "$@" 2>&1', "sh", binary("postgres"), ...flags]);
  const server = await start(command, all, { line: /ready to accept connections/, signal: "SIGQUIT", log: join(folder, "log"), cwd: folder });
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const environment = { PATH: process.env.PATH };
  run(process.env.WIDGETS_BINARY, ["migrate", "--changes", "--store", url], { env: environment });
  return {
    url,
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Starts nginx in front of a service as the recipe for a plain host configures it: at the root, and also under a path. */
export async function nginx(service) {
  const deployments = process.env.DEPLOYMENTS;
  const folder = mkdtempSync(join(tmpdir(), "widgets-console-nginx-"));
  // If root starts nginx, its workers run as another user.
  chmodSync(folder, 0o755);
  const port = await freePort();
  const place = (text) => text.replaceAll("/etc/nginx/widgets", folder);
  for (const name of ["maps.conf", "api.conf", "error.conf"]) {
    writeFileSync(join(folder, name), place(readFileSync(join(deployments, "docker-compose/nginx", name), "utf8")));
  }
  const { host } = new URL(service.url);
  const recipe = (name) => place(readFileSync(join(deployments, "systemd", name), "utf8")).replaceAll("127.0.0.1:3000", host);
  const site = recipe("nginx.conf").replace("127.0.0.1:80;", `127.0.0.1:${port};`);
  writeFileSync(join(folder, "path.conf"), recipe("nginx-path.conf"));
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n");
  const beside = await freePort();
  const other = `server {\n listen 127.0.0.1:${beside};\n include ${folder}/path.conf;\n location / { return 200 "somebody else's page"; }\n}`;
  writeFileSync(join(folder, "nginx.conf"), `pid ${folder}/pid;\nerror_log ${folder}/error.log;\ndaemon off;\nevents {}\nhttp {\naccess_log ${folder}/access.log;\n${paths}\n${site}\n${other}\n}\n`);
  const flags = ["-p", folder, "-e", join(folder, "error.log"), "-c", join(folder, "nginx.conf")];
  const server = await start("nginx", flags, {
    up: () => existsSync(join(folder, "pid")) && readFileSync(join(folder, "pid"), "utf8") !== "",
    signal: "SIGQUIT",
    log: join(folder, "log"),
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
  });
  return {
    url: `http://127.0.0.1:${port}`,
    under: `http://127.0.0.1:${beside}/registry`,
    asked: () => readFileSync(join(folder, "access.log"), "utf8"),
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function browse() {
  return chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export async function ask(url, operation, body, token) {
  const response = await fetch(`${url}/rpc/${operation}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  return response.status;
}
