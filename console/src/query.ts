// Filters in the API's query language, from a form or from a line.

/** Returns the least text after all texts with this prefix, by code points, as the service compares. */
export function afterPrefix(prefix: string): string | null {
  const points = [...prefix];
  while (points.length) {
    const next = points.pop()!.codePointAt(0)! + 1;
    if (next > 0x10ffff) continue;
    return points.join("") + String.fromCodePoint(next >= 0xd800 && next <= 0xdfff ? 0xe000 : next);
  }
  return null;
}

export interface Fields {
  prefix: string;
  name: string;
  free: string;
  peer: string;
}

/** Returns the parameters for the fields of the form. */
export function parameters({ prefix, name, free, peer }: Fields): URLSearchParams {
  const query = new URLSearchParams();
  if (prefix) {
    query.append("serial_number", `gte.${prefix}`);
    const end = afterPrefix(prefix);
    if (end !== null) query.append("serial_number", `lt.${end}`);
  }
  if (name) query.append("name", name.includes("*") ? `ilike.${name}` : `eq.${name}`);
  if (free) query.append("slots", `cs.${JSON.stringify([{ port: free, peer: null }])}`);
  if (peer) query.append("slots", `cs.${JSON.stringify([{ peer }])}`);
  return query;
}

/** Parameters that do not filter: a table decides itself what it shows of which rows, and in which order. */
const PAGING = ["select", "order", "limit", "offset"];

/** Returns the parameters that filter. */
export function filtersOf(query: URLSearchParams): URLSearchParams {
  return new URLSearchParams([...query].filter(([name]) => !PAGING.includes(name)));
}

/** Returns the parameters in a readable form: only characters with a meaning in a query stay escaped. */
export function readable(query: URLSearchParams): string {
  const escape = (text: string): string => text.replace(/[%&+#]/g, (character) => encodeURIComponent(character));
  return [...query].map(([name, value]) => `${escape(name)}=${escape(value)}`).join("&");
}
