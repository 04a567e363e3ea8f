// The public API, asked as any client asks it. Every path is relative to this page, so that a prefix of a
// proxy stays in front of it.

import { afterPrefix } from "./query";

export interface Slot {
  port: string;
  peer: string | null;
}

export interface Widget {
  serial_number: string;
  name: string;
  slots: Slot[];
}

export interface Association {
  widget1_sn: string;
  widget2_sn: string;
  port: string;
}

export interface Neighbourhood {
  widgets: Widget[];
  associations: Association[];
  truncated: boolean;
  /** Whether all of it was so at the same time. */
  oneMoment: boolean;
}

export interface Change {
  position: string;
  at: string;
  by: string | null;
  operation: string;
  widget_sn?: string;
  widget_name?: string;
  slots?: string[];
  freed?: { widget_sn: string; slot: number }[];
  widget1_sn?: string;
  widget2_sn?: string;
  slot1?: number;
  slot2?: number;
  port?: string;
}

/** What the service, or the network, says instead of doing what was asked. */
export class Failure extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: string | null;

  constructor(status: number, code: string, message: string, details: string | null) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

/** What a page can carry only as one segment of a path that every URL parser takes out. */
const PATHLESS = [".", ".."];

const NOT_ALLOWED = "42501";
const STANDBY = "WG507";

/** The root of the API: the folder above this page. */
export const root = new URL("../", new URL(".", document.location.href));

const TOKEN = "widgets.token";

/** The caller's token. It stays in this tab, and never gets into a URL. */
export const token = {
  get: (): string => sessionStorage.getItem(TOKEN) ?? "",
  set: (value: string): void => (value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN)),
};

interface Asked {
  method?: "GET" | "HEAD" | "POST";
  accept?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** Asks, and returns the answer where it is one of success. */
export async function ask(path: string, asked: Asked = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: asked.accept ?? "application/json", ...asked.headers };
  if (asked.body !== undefined) headers["Content-Type"] = "application/json";
  if (token.get()) headers["Authorization"] = `Bearer ${token.get()}`;
  let response: Response;
  try {
    response = await fetch(new URL(path, root), {
      method: asked.method ?? (asked.body === undefined ? "GET" : "POST"),
      headers,
      body: asked.body === undefined ? null : JSON.stringify(asked.body),
      signal: asked.signal ?? null,
      cache: "no-store",
    });
  } catch (error) {
    if (asked.signal?.aborted) throw error;
    throw new Failure(0, "", "The service does not answer. Is it running, and is there a network?", null);
  }
  if (response.ok) return response;
  const text = await response.text();
  try {
    const { code, message, details } = JSON.parse(text);
    throw new Failure(response.status, String(code), String(message), details ?? null);
  } catch (error) {
    if (error instanceof Failure) throw error;
    // An answer to HEAD has no body, one of a proxy another; the header says the code as well.
    const code = /error=(\w+)/.exec(response.headers.get("Proxy-Status") ?? "")?.[1] ?? "";
    throw new Failure(response.status, code, `The answer is ${response.status} ${response.statusText}.`, null);
  }
}

/** A serial number as a segment of a path. */
const segment = (serialNumber: string): string => encodeURIComponent(serialNumber);

export async function lookup(serialNumber: string, signal?: AbortSignal): Promise<Widget> {
  if (PATHLESS.includes(serialNumber)) {
    const accept = "application/vnd.pgrst.object+json";
    return (await ask(`widgets?serial_number=eq.${serialNumber}`, { accept, signal })).json();
  }
  return (await ask(`widgets/${segment(serialNumber)}`, { signal })).json();
}

export async function neighbourhood(
  serialNumber: string,
  depth: number,
  widgetsMax: number,
  signal?: AbortSignal,
): Promise<Neighbourhood> {
  if (PATHLESS.includes(serialNumber)) return aroundPathless(serialNumber, depth, widgetsMax, signal);
  const path = `widgets/${segment(serialNumber)}/neighbourhood?depth=${depth}&widgets_max=${widgetsMax}`;
  return { ...(await (await ask(path, { signal })).json()), oneMoment: true };
}

/** The neighbourhood of a widget that no path can name: lists, one for each step. They are not of one moment. */
async function aroundPathless(
  serialNumber: string,
  depth: number,
  widgetsMax: number,
  signal?: AbortSignal,
): Promise<Neighbourhood> {
  const found = new Map([[serialNumber, await lookup(serialNumber, signal)]]);
  let truncated = false;
  let next = peersOf([...found.values()]);
  for (let step = 0; step < depth; step++) {
    const wanted = next.filter((peer) => !found.has(peer)).slice(0, widgetsMax - found.size + 1);
    if (found.size + wanted.length > widgetsMax) {
      truncated = true;
      wanted.pop();
    }
    if (!wanted.length) break;
    const query = new URLSearchParams({ serial_number: `in.(${wanted.map(quoted).join(",")})` });
    const rows = await list(query.toString(), signal);
    for (const widget of rows) found.set(widget.serial_number, widget);
    next = peersOf(rows);
  }
  const widgets = [...found.values()];
  const associations = widgets.flatMap((widget) =>
    widget.slots
      .filter((slot) => slot.peer !== null && found.has(slot.peer) && widget.serial_number < slot.peer)
      .map((slot) => ({ widget1_sn: widget.serial_number, widget2_sn: slot.peer!, port: slot.port })),
  );
  return { widgets, associations, truncated, oneMoment: found.size === 1 };
}

const peersOf = (widgets: Widget[]): string[] => [
  ...new Set(widgets.flatMap((widget) => widget.slots.flatMap((slot) => slot.peer ?? []))),
];

/** A value within a list of a filter. */
const quoted = (text: string): string => `"${text.replace(/["\\]/g, "\\$&")}"`;

/** One page of a list. */
export async function list(query: string, signal?: AbortSignal): Promise<Widget[]> {
  return (await ask(`widgets?${query}`, { signal })).json();
}

/** Whether there is no widget at all. */
export async function isEmpty(signal?: AbortSignal): Promise<boolean> {
  return (await list("select=serial_number&limit=1", signal)).length === 0;
}

/** Serial numbers that begin so, for suggestions. */
export async function beginningWith(prefix: string, limit: number, signal?: AbortSignal): Promise<string[]> {
  const query = new URLSearchParams({ select: "serial_number", limit: String(limit), serial_number: `gte.${prefix}` });
  const end = afterPrefix(prefix);
  if (end !== null) query.append("serial_number", `lt.${end}`);
  return (await list(query.toString(), signal)).map((row) => row.serial_number);
}

/** How many rows a filter has. Unfiltered it costs the service nothing; filtered it may be a scan. */
export async function count(query: string, signal?: AbortSignal): Promise<number | null> {
  const headers = { Prefer: "count=exact" };
  return totalOf(await ask(`widgets?${query}${query ? "&" : ""}limit=1`, { method: "HEAD", headers, signal }));
}

function totalOf(response: Response): number | null {
  const total = Number(response.headers.get("Content-Range")?.split("/")[1] ?? "*");
  return Number.isFinite(total) ? total : null;
}

export async function changes(
  query: string,
  signal?: AbortSignal,
): Promise<{ changes: Change[]; next: string | null }> {
  const response = await ask(`changes?${query}`, { signal });
  return { changes: await response.json(), next: response.headers.get("Next-Position") };
}

export type Operation = "add_widget" | "remove_widget" | "associate_widgets" | "remove_association";

/** Whether the caller can change anything here: a role may only look, and a standby changes nothing for anybody. */
export type Rights = { operate: true } | { operate: false; because: "role" } | { operate: false; because: "standby"; primary: string };

/**
 * What the caller may do. The service says so by how it refuses what is never done: `HEAD` of an operation is "no such
 * method" to those who may call it, and "not allowed" to the others. A standby is not ready in the role of a primary, and
 * says where that is. Neither is counted as a refused request.
 */
export async function rights(signal?: AbortSignal): Promise<Rights> {
  const [operation, role] = await Promise.all([
    refusal("rpc/remove_widget?widget_sn=", "HEAD", signal),
    refusal("ready?role=primary", "GET", signal),
  ]);
  // Whoever is not let in at all does not know what there is to be allowed.
  if (operation?.status === 401) throw operation;
  if (operation?.code === NOT_ALLOWED) return { operate: false, because: "role" };
  if (role?.code === STANDBY) return { operate: false, because: "standby", primary: role.details ?? "" };
  return { operate: true };
}

/** How this is refused, if it is. */
async function refusal(path: string, method: "GET" | "HEAD", signal?: AbortSignal): Promise<Failure | null> {
  try {
    await ask(path, { method, signal });
    return null;
  } catch (failure) {
    if (failure instanceof Failure) return failure;
    throw failure;
  }
}

/** With a key it is applied once, however often it is sent. */
export async function operate(operation: Operation, body: Record<string, unknown>, key?: string): Promise<void> {
  await ask(`rpc/${operation}`, { body, headers: key === undefined ? {} : { "Idempotency-Key": `"${key}"` } });
}

/** A key that nobody else has. Not `randomUUID`: browsers have that only where there is TLS. */
export const newKey = (): string =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Whether it is not known if what was asked for was done, or known that it can simply be asked for again. */
export const canBeSentAgain = (failure: unknown): boolean =>
  failure instanceof Failure && (failure.status === 0 || failure.status === 429 || failure.status === 503);

/** What turns the direction of a text, or is not seen: a line that is copied has to be what it looks like. */
const INVISIBLE = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** The same as a line for a shell. */
export function curl(operation: Operation, body: Record<string, unknown>): string {
  const shell = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const authorization = token.get() ? ` -H "Authorization: Bearer $WIDGETS_TOKEN"` : "";
  const url = new URL(`rpc/${operation}`, root);
  const json = JSON.stringify(body).replace(INVISIBLE, escaped);
  return `curl -i ${shell(url.href)} -H 'Content-Type: application/json'${authorization} -d ${shell(json)}`;
}
