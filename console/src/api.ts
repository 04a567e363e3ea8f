// The public API, asked as any client asks it. Every path is relative to this page, so that a prefix of a
// proxy stays in front of it.

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
  readonly hint: string | null;

  constructor(status: number, code: string, message: string, details: string | null, hint: string | null) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.hint = hint;
  }
}

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
    throw new Failure(0, "", "The service does not answer.", null, "Is it running, and is there a network?");
  }
  if (response.ok) return response;
  const text = await response.text();
  try {
    const { code, message, details, hint } = JSON.parse(text);
    throw new Failure(response.status, String(code), String(message), details ?? null, hint ?? null);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(response.status, "", `The answer is ${response.status} ${response.statusText}.`, null, null);
  }
}

/** A serial number as a segment of a path. */
const segment = (serialNumber: string): string => encodeURIComponent(serialNumber);

export async function lookup(serialNumber: string, signal?: AbortSignal): Promise<Widget> {
  // URL parsers take `.` and `..` out of a path.
  if (serialNumber === "." || serialNumber === "..") {
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
  const path = `widgets/${segment(serialNumber)}/neighbourhood?depth=${depth}&widgets_max=${widgetsMax}`;
  return (await ask(path, { signal })).json();
}

/** One page of a list, and the number of rows where it was asked for. */
export async function list(
  query: string,
  signal?: AbortSignal,
  count = false,
): Promise<{ rows: Widget[]; total: number | null }> {
  const headers: Record<string, string> = count ? { Prefer: "count=exact" } : {};
  const response = await ask(`widgets?${query}`, { signal, headers });
  return { rows: await response.json(), total: totalOf(response) };
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

export async function operate(operation: Operation, body: Record<string, unknown>): Promise<void> {
  await ask(`rpc/${operation}`, { body });
}

/** The same as a line for a shell. */
export function curl(operation: Operation, body: Record<string, unknown>): string {
  const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const authorization = token.get() ? ` -H "Authorization: Bearer $WIDGETS_TOKEN"` : "";
  const url = new URL(`rpc/${operation}`, root);
  return `curl -i ${quoted(url.href)} -H 'Content-Type: application/json'${authorization} -d ${quoted(JSON.stringify(body))}`;
}
