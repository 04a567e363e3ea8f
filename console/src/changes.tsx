// Changes as they happen, with who did them.

import { useEffect, useState } from "preact/hooks";
import { type Change, Failure, changes } from "./api";
import { Port, Problem, SerialNumber, Text, WidgetLink, to, useToken } from "./parts";

/** How long the service is asked to wait for a change. */
const WAIT_MS = 15_000;
/** How long to rest before a service that does not answer is asked again. */
const RETRY_MS = 2_000;
/** So many changes stay on the screen. */
const SHOWN_MAX = 200;

const WAITING = "Waiting for the next change. It is shown here as soon as it is committed.";
/** The service has no changes to tell: a store without a feed, or a position that is no longer kept. */
const [NO_CHANGES, GONE] = ["WG501", "WG410"];

const OPERATIONS = ["add_widget", "remove_widget", "associate_widgets", "remove_association"];

export function ChangesScreen({ query }: { query: URLSearchParams }) {
  const subject = query.get("widget_sn") ?? "";
  const [widget, setWidget] = useState(subject);
  const [operation, setOperation] = useState("");
  const [paused, setPaused] = useState(false);
  const [from, setFrom] = useState<"oldest" | "now">(subject ? "oldest" : "now");
  useEffect(() => setWidget(subject), [subject]);
  const { seen, failure, follows } = useChanges(subject, operation, from, paused);
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
          Of this widget
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
          <select value={from} onChange={(event) => setFrom(event.currentTarget.value as "oldest" | "now")}>
            <option value="now">what happens now</option>
            <option value="oldest">the oldest that is kept</option>
          </select>
        </label>
        <div class="buttons">
          <button type="submit">Filter</button>
          <button type="button" class="quiet" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? "Go on" : "Pause"}
          </button>
        </div>
      </form>
      <Problem failure={failure} />
      {(seen.length > 0 || failure === null) && (
        <ChangeRows changes={seen} empty={paused ? "Paused." : follows ? WAITING : "Asking…"} />
      )}
    </>
  );
}

function useChanges(
  widget: string,
  operation: string,
  from: "oldest" | "now",
  paused: boolean,
): { seen: Change[]; failure: unknown; follows: boolean } {
  const [seen, setSeen] = useState<Change[]>([]);
  const [failure, setFailure] = useState<unknown>(null);
  /** The service has answered, so that nothing which happens from now on is missed. */
  const [follows, setFollows] = useState(false);
  const [turn, setTurn] = useState(0);
  useToken(() => setTurn((turn) => turn + 1));
  const [position, setPosition] = useState<{ key: string; after: string | null }>({ key: "", after: null });
  const key = `${widget}#${operation}#${from}`;
  useEffect(() => {
    if (paused) return;
    const controller = new AbortController();
    let after = position.key === key ? position.after : from === "now" ? "now" : null;
    // The first answer comes at once, and says where to go on.
    let first = position.key !== key;
    if (first) {
      setSeen([]);
      setFollows(false);
    }
    setFailure(null);
    const follow = async (): Promise<void> => {
      while (!controller.signal.aborted) {
        const wait = first ? "0" : String(WAIT_MS);
        const query = new URLSearchParams({ limit: String(SHOWN_MAX), wait_ms: wait });
        if (after !== null) query.set("after", after);
        if (widget) query.set("widget_sn", `eq.${widget}`);
        if (operation) query.set("operation", `in.(${operation})`);
        try {
          const page = await changes(query.toString(), controller.signal);
          after = page.next ?? after;
          first = false;
          setPosition({ key, after });
          setSeen((seen) => [...page.changes.toReversed(), ...seen].slice(0, SHOWN_MAX));
          setFailure(null);
          setFollows(true);
        } catch (failure) {
          if (controller.signal.aborted) return;
          setFailure(failure);
          if (failure instanceof Failure && failure.code === GONE) after = null;
          else if (isFinal(failure)) return;
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    };
    void follow();
    return () => controller.abort();
  }, [key, paused, turn]);
  return { seen, failure, follows };
}

/** What only a person can change is not asked for again. */
function isFinal(failure: unknown): boolean {
  if (!(failure instanceof Failure) || failure.status === 429) return false;
  return (failure.status >= 400 && failure.status < 500) || failure.code === NO_CHANGES;
}

/** The newest first. */
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
