// A client of the public API, without any special access. Every path is relative to this page, so that a proxy's
// path prefix is kept.

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
  /** Whether everything in it is from the same moment. */
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

/** An error or refusal by the service, or a failure of the network. */
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

/** Serial numbers that cannot be a segment of a path, because every URL parser removes such segments. */
const PATHLESS = [".", ".."];

const NOT_ALLOWED = "42501";
const KEY_IN_USE = "WG409";
const STANDBY = "WG507";

/** The root of the API: the folder above this page. */
export const root = new URL("../", new URL(".", document.location.href));

const NOT_THE_SERVICE = "The answer does not come from the service but from a proxy, which may want you to log in";

const TOKEN = "widgets.token";

/** The caller's token. It stays in this tab and never gets into a URL. */
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

/** Sends a request. Returns a successful answer, and throws a `Failure` otherwise. */
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
    // An answer to HEAD has no body, and a proxy's answer has a different one, but the header also contains the code.
    const code = /error=(\w+)/.exec(response.headers.get("Proxy-Status") ?? "")?.[1] ?? "";
    throw new Failure(response.status, code, `The answer is ${response.status} ${response.statusText}.`, null);
  }
}

/** Encodes a serial number as a segment of a path. */
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

/** Builds the neighbourhood of a widget that no path can name from lists, one for each step, which are from different moments. */
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

/** Quotes a value for a list in a filter. */
const quoted = (text: string): string => `"${text.replace(/["\\]/g, "\\$&")}"`;

/** Returns one page of a list. */
export async function list(query: string, signal?: AbortSignal): Promise<Widget[]> {
  return (await ask(`widgets?${query}`, { signal })).json();
}

/** Returns whether the registry is empty. */
export async function isEmpty(signal?: AbortSignal): Promise<boolean> {
  return (await list("select=serial_number&limit=1", signal)).length === 0;
}

/** Returns serial numbers with this prefix, as suggestions. */
export async function beginningWith(prefix: string, limit: number, signal?: AbortSignal): Promise<string[]> {
  const query = new URLSearchParams({ select: "serial_number", limit: String(limit), serial_number: `gte.${prefix}` });
  const end = afterPrefix(prefix);
  if (end !== null) query.append("serial_number", `lt.${end}`);
  return (await list(query.toString(), signal)).map((row) => row.serial_number);
}

/** Returns how many rows a filter matches. Without a filter, the service knows the number; with one, it may have to scan. */
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

/** Whether the caller can change anything here. A role may allow only reading, and a standby accepts no changes from anybody. */
export type Rights = { operate: true } | { operate: false; because: "role" } | { operate: false; because: "standby"; primary: string };

/**
 * Returns what the caller may do, which the service reveals in how it refuses requests that never succeed. It answers `HEAD`
 * of an operation with "no such method" if the caller may call the operation, and with "not allowed" otherwise. A standby is
 * not ready in the role of a primary, and says where the primary is. The service counts neither as a refused request.
 * Any other answer, or none, leaves open what the caller may do, and is thrown.
 */
export async function rights(signal?: AbortSignal): Promise<Rights> {
  const [operation, role] = await Promise.all([
    refusal("rpc/remove_widget?widget_sn=", "HEAD", signal),
    refusal("ready?role=primary", "GET", signal),
  ]);
  // The code comes first: to a caller without a token, "not allowed" has the status of a missing token.
  if (operation?.code === NOT_ALLOWED) return { operate: false, because: "role" };
  const unknown = new Failure(200, "", `${NOT_THE_SERVICE}, so it is unknown what you may do.`, null);
  if (operation?.status !== 405) throw operation ?? unknown;
  if (role?.code === STANDBY) return { operate: false, because: "standby", primary: role.details ?? "" };
  // A proxy may hide where the service says whether it is ready.
  if (role && role.status !== 404) throw role;
  return { operate: true };
}

/** Sends a request, and returns how it is refused, or null if it succeeds. */
async function refusal(path: string, method: "GET" | "HEAD", signal?: AbortSignal): Promise<Failure | null> {
  try {
    await ask(path, { method, signal });
    return null;
  } catch (failure) {
    if (failure instanceof Failure) return failure;
    throw failure;
  }
}

/** Sends an operation. With a key, the service applies it only once, however often it is sent. */
export async function operate(operation: Operation, body: Record<string, unknown>, key?: string): Promise<void> {
  const { status } = await ask(`rpc/${operation}`, { body, headers: key === undefined ? {} : { "Idempotency-Key": `"${key}"` } });
  // The service answers nothing else to an operation that it applied, but a proxy's page to log in is a success too.
  if (status !== 204) throw new Failure(status, "", `${NOT_THE_SERVICE}, so it is unknown whether the operation was applied.`, null);
}

/** Returns a unique key. Does not use `randomUUID`, which browsers offer only with TLS. */
export const newKey = (): string =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Returns whether a request can be sent again, because its outcome is unknown or because it was only put off. */
export const canBeSentAgain = (failure: unknown): boolean =>
  failure instanceof Failure &&
  // No answer, or a success that is not the service's; put off; a failure of the service or of a proxy; in progress.
  (failure.status < 300 || failure.status === 429 || failure.status >= 500 || failure.code === KEY_IN_USE);

/** Characters that change the direction of a text or are invisible: a copied line must be what it looks like. */
const INVISIBLE = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Returns the operation as a command line for a shell. */
export function curl(operation: Operation, body: Record<string, unknown>): string {
  const shell = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const authorization = token.get() ? ` -H "Authorization: Bearer $WIDGETS_TOKEN"` : "";
  const url = new URL(`rpc/${operation}`, root);
  const json = JSON.stringify(body).replace(INVISIBLE, escaped);
  return `curl -i ${shell(url.href)} -H 'Content-Type: application/json'${authorization} -d ${shell(json)}`;
}
