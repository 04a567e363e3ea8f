// Lists: with filters as a form and as a line, one page at a time after the last serial number.

import { useEffect, useState } from "preact/hooks";
import { ask, count, list } from "./api";
import { Problem, Searching, SerialNumber, Slots, Stopped, Text, WidgetLink, download, number, to, useLoaded } from "./parts";
import { type Fields, filtersOf, parameters, readable } from "./query";

const ROWS = 20;
const NOTHING: Fields = { prefix: "", name: "", free: "", peer: "" };

export function WidgetsScreen({ query }: { query: URLSearchParams }) {
  const filter = filtersOf(query).toString();
  return (
    <>
      <h1>Widgets</h1>
      <Filters query={query} />
      <Rows key={filter} filter={filter} />
    </>
  );
}

function Filters({ query }: { query: URLSearchParams }) {
  const [fields, setFields] = useState(NOTHING);
  const applied = readable(filtersOf(query));
  const [line, setLine] = useState(applied);
  useEffect(() => setLine(applied), [query.toString()]);
  const go = (query: URLSearchParams): void => {
    location.hash = to.widgets(query.toString());
  };
  const field = (name: keyof Fields, label: string, hint: string) => (
    <label>
      {label}
      <input
        value={fields[name]}
        placeholder={hint}
        spellcheck={false}
        autocapitalize="off"
        onInput={(event) => setFields({ ...fields, [name]: event.currentTarget.value })}
      />
    </label>
  );
  return (
    <div class="card filters">
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          go(parameters(fields));
        }}
      >
        {field("prefix", "Serial number begins with", "AB-")}
        {field("name", "Name (* matches anything)", "*pump*")}
        <label>
          Has a free slot
          <select value={fields.free} onChange={(event) => setFields({ ...fields, free: event.currentTarget.value })}>
            <option value="">any or none</option>
            {["P", "R", "Q"].map((port) => (
              <option key={port}>{port}</option>
            ))}
          </select>
        </label>
        <label>
          Associated with
          <SerialNumber
            id="peers"
            value={fields.peer}
            placeholder="serial number"
            onValue={(peer) => setFields({ ...fields, peer })}
          />
        </label>
        <div class="buttons">
          <button type="submit">Search</button>
          <button
            type="button"
            class="quiet"
            onClick={() => {
              setFields(NOTHING);
              go(new URLSearchParams());
            }}
          >
            Clear
          </button>
        </div>
      </form>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          go(new URLSearchParams(line));
        }}
      >
        <label>
          The same as an API query
          <input
            class="code"
            value={line}
            spellcheck={false}
            autocapitalize="off"
            placeholder="name=ilike.*pump*&or=(serial_number.lt.B,serial_number.gt.X)"
            onInput={(event) => setLine(event.currentTarget.value)}
          />
        </label>
      </form>
    </div>
  );
}

function Rows({ filter }: { filter: string }) {
  /** The serial numbers after which the wanted page and those before it begin. */
  const [wanted, setWanted] = useState<string[]>([]);
  const pageQuery = (starts: string[], limit: number): string => {
    const query = new URLSearchParams(filter);
    const after = starts.at(-1);
    if (after !== undefined) query.append("serial_number", `gt.${after}`);
    query.set("order", "serial_number.asc");
    query.set("limit", String(limit));
    return query.toString();
  };
  const page = useLoaded(`${filter}#${wanted.at(-1)}`, async (signal) => ({
    // One row more than is shown tells whether there is a next page, without counting.
    found: await list(pageQuery(wanted, ROWS + 1), signal),
    starts: wanted,
  }));
  // The page that is shown stays until the wanted one has come, and for good if that is stopped.
  const { found, starts } = page.value ?? { found: [], starts: [] };
  const rows = found.slice(0, ROWS);
  const last = rows.at(-1);
  const [exporting, setExporting] = useState<unknown>(null);
  const more = found.length > ROWS;
  const turnTo = (starts: string[]): void => {
    setWanted(starts);
    // The same page may be wanted again, after it was stopped.
    page.reload();
  };
  if (page.failure) return <Problem failure={page.failure} retry={page.reload} />;
  return (
    <section aria-busy={page.loading}>
      <div class="table">
        <table>
          <caption class="hidden">Widgets in the order of their serial numbers</caption>
          <thead>
            <tr>
              <th scope="col">Serial number</th>
              <th scope="col">Name</th>
              <th scope="col">Slots</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((widget) => (
              <tr key={widget.serial_number}>
                <th scope="row">
                  <WidgetLink serialNumber={widget.serial_number} />
                </th>
                <td>
                  <Text>{widget.name}</Text>
                </td>
                <td>
                  <Slots slots={widget.slots} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {page.value && !rows.length && <p class="nothing">No widget matches.</p>}
        {page.stopped && !page.value && <Stopped again={page.reload} />}
        {page.loading && !page.value && <Searching stop={page.stop} />}
      </div>
      <div class="pager" hidden={!page.value}>
        <button type="button" class="quiet" disabled={!starts.length} onClick={() => turnTo(starts.slice(0, -1))}>
          Previous
        </button>
        <button
          type="button"
          class="quiet"
          disabled={!more || !last}
          onClick={() => last && turnTo([...starts, last.serial_number])}
        >
          Next
        </button>
        <Count filter={filter} />
        <button type="button" class="quiet" disabled={!rows.length} onClick={() => exportCsv(pageQuery(starts, ROWS)).then(() => setExporting(null), setExporting)}>
          Export these as CSV
        </button>
        {page.loading && page.value && <Searching stop={page.stop} />}
        {page.stopped && page.value && <Stopped again={page.reload} />}
      </div>
      <Problem failure={exporting} />
    </section>
  );
}

async function exportCsv(query: string): Promise<void> {
  const response = await ask(`widgets?${query}`, { accept: "text/csv" });
  download("widgets.csv", "text/csv", await response.text());
}

/** Counts the widgets on request only, because with a filter this may be a long search. */
function Count({ filter }: { filter: string }) {
  const [counting, setCounting] = useState<AbortController | null>(null);
  const [result, setResult] = useState<{ total: number | null; failure: unknown } | null>(null);
  useEffect(() => () => counting?.abort(), [counting]);
  if (result?.failure) return <Problem failure={result.failure} />;
  if (result) return <span role="status">{number(result.total)} in total</span>;
  if (counting) {
    return (
      <span role="status">
        Counting…{" "}
        <button type="button" class="quiet" onClick={() => (counting.abort(), setCounting(null))}>
          Stop
        </button>
      </span>
    );
  }
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => {
        const controller = new AbortController();
        setCounting(controller);
        count(filter, controller.signal).then(
          (total) => setResult({ total, failure: null }),
          (failure) => controller.signal.aborted || setResult({ total: null, failure }),
        );
      }}
    >
      Count them
    </button>
  );
}
