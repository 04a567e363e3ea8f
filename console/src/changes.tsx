// Shows changes as they happen, with the callers who made them.

import { useEffect, useState } from "preact/hooks";
import type { Change } from "./api";
import { type From, useChanges } from "./follow";
import { Port, Problem, SerialNumber, Text, WidgetLink, to } from "./parts";

const WAITING = "Waiting for the next change. It appears here as soon as it is committed.";

const OPERATIONS = ["add_widget", "remove_widget", "associate_widgets", "remove_association"];

export function ChangesScreen({ query }: { query: URLSearchParams }) {
  const subject = query.get("widget_sn") ?? "";
  const [widget, setWidget] = useState(subject);
  const [operation, setOperation] = useState("");
  const [paused, setPaused] = useState(false);
  const [from, setFrom] = useState<From>(subject ? "oldest" : "now");
  useEffect(() => setWidget(subject), [subject]);
  const { seen, failure, follows, missed, more } = useChanges(subject, operation, from, paused);
  return (
    <>
      <h1>Changes</h1>
      <form
        class="card fields"
        onSubmit={(event) => {
          event.preventDefault();
          location.hash = widget ? to.changes(widget) : "#/changes";
        }}
      >
        <label>
          Widget
          <SerialNumber id="of" value={widget} placeholder="any" onValue={setWidget} />
        </label>
        <label>
          Operation
          <select value={operation} onChange={(event) => setOperation(event.currentTarget.value)}>
            <option value="">any</option>
            {OPERATIONS.map((operation) => (
              <option key={operation}>{operation}</option>
            ))}
          </select>
        </label>
        <label>
          Begin with
          <select value={from} onChange={(event) => setFrom(event.currentTarget.value as From)}>
            <option value="now">new changes</option>
            <option value="oldest">the oldest change that is kept</option>
          </select>
        </label>
        <div class="buttons">
          <button type="submit">Filter</button>
          <button type="button" class="quiet" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? "Resume" : "Pause"}
          </button>
        </div>
      </form>
      <Problem failure={failure} />
      {missed && (
        <p class="card" role="note">
          More changes happen than can be shown, so some were left out. To see all changes of one kind, use a filter.
        </p>
      )}
      {more && (
        <p>
          These are the oldest changes.{" "}
          <button type="button" class="quiet" onClick={more}>
            Show the next ones
          </button>
        </p>
      )}
      {(seen.length > 0 || failure === null) && (
        <div class="card">
          <ChangeRows changes={seen} empty={paused ? "Paused." : follows ? WAITING : "Loading…"} />
        </div>
      )}
    </>
  );
}

/** Shows changes, newest first. */
export function ChangeRows({ changes, empty }: { changes: Change[]; empty: string }) {
  if (!changes.length) return <p class="nothing">{empty}</p>;
  return (
    <ol class="changes" aria-live="polite">
      {changes.map((change) => (
        <li key={change.position}>
          <time dateTime={change.at}>{change.at.replace("T", " ").replace(/(\.\d{3})\d*Z$/, "$1")}</time>
          <span class="by">{change.by === null ? <span class="faint">anonymous</span> : <Text>{change.by}</Text>}</span>
          <span class={`operation ${change.operation}`}>{change.operation}</span>
          <span class="what">
            <What change={change} />
          </span>
        </li>
      ))}
    </ol>
  );
}

function What({ change }: { change: Change }) {
  if (change.widget1_sn !== undefined && change.widget2_sn !== undefined) {
    return (
      <>
        <WidgetLink serialNumber={change.widget1_sn} /> <Port port={change.port ?? ""} />{" "}
        <WidgetLink serialNumber={change.widget2_sn} />
      </>
    );
  }
  return (
    <>
      <WidgetLink serialNumber={change.widget_sn ?? ""} />{" "}
      {change.widget_name !== undefined && <Text>{change.widget_name}</Text>}{" "}
      {change.slots?.map((port, index) => <Port key={index} port={port} />)}
      {change.freed?.length ? (
        <span class="faint">
          {" "}
          frees a slot of{" "}
          {change.freed.map(({ widget_sn }, index) => (
            <>
              {index > 0 && ", "}
              <WidgetLink serialNumber={widget_sn} />
            </>
          ))}
        </span>
      ) : null}
    </>
  );
}
