// Filters in the API's own language, from a form or from a line.

/** The least text after every text that begins so, by code points, as the service compares. */
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

/** The parameters that the fields of the form stand for. */
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

/** The parameters as a person reads them: only what has a meaning in a query stays escaped. */
export function readable(query: URLSearchParams): string {
  const escape = (text: string): string => text.replace(/[%&+#]/g, (character) => encodeURIComponent(character));
  return [...query].map(([name, value]) => `${escape(name)}=${escape(value)}`).join("&");
}
