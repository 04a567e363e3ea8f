// One widget: its slots and peers, what can be done with it, and its changes.

import { useState } from "preact/hooks";
import { type Widget, Failure, curl, lookup, operate } from "./api";
import { ChangeRows } from "./changes";
import { useHistory } from "./follow";
import { Card, Copyable, Port, Problem, ReadOnly, Searching, Stopped, Text, WidgetLink, to, useLoaded, useRights, useToken } from "./parts";

export function WidgetScreen({ serialNumber }: { serialNumber: string }) {
  const widget = useLoaded(serialNumber, (signal) => lookup(serialNumber, signal));
  const history = useHistory(serialNumber);
  const rights = useRights();
  // Without knowing what the caller may do, everything is shown and nothing offered.
  const settled = rights.value !== null || rights.failure !== null;
  const operable = rights.value?.operate === true;
  const [failure, setFailure] = useState<unknown>(null);
  const [removed, setRemoved] = useState(false);
  const missing = widget.failure instanceof Failure && widget.failure.code === "WG001";
  const again = (): void => {
    widget.reload();
    history.reload();
  };
  const dissociate = (peer: string, port: string): void => {
    setFailure(null);
    const body = { widget1_sn: serialNumber, widget2_sn: peer, port };
    operate("remove_association", body).then(again, setFailure);
  };
  return (
    <>
      <h1>
        <Text>{serialNumber}</Text>
      </h1>
      {removed && <p role="status">It was removed.</p>}
      {!removed && <Problem failure={widget.failure} retry={widget.reload} />}
      {widget.value && settled && !removed && (
        <>
          <p>
            Name: <Text>{widget.value.name}</Text>
          </p>
          <Card
            title="Slots"
            side={
              <span class="links">
                <a href={to.near(serialNumber)}>Neighbourhood</a>
                {operable && <a href={`#/operations?widget1_sn=${encodeURIComponent(serialNumber)}`}>Associate</a>}
              </span>
            }
          >
            {widget.value.slots.length === 0 && <p class="faint">It has no slots.</p>}
            <ol class="slot-rows">
              {widget.value.slots.map((slot, index) => (
                <li key={index}>
                  <Port port={slot.port} free={slot.peer === null} />
                  {slot.peer === null ? (
                    <span class="faint">free</span>
                  ) : (
                    <>
                      <WidgetLink serialNumber={slot.peer} />
                      {operable && (
                        <button type="button" class="quiet" onClick={() => dissociate(slot.peer!, slot.port)}>
                          Remove association
                          <span class="hidden">{` with ${slot.peer} over ${slot.port}`}</span>
                        </button>
                      )}
                    </>
                  )}
                </li>
              ))}
            </ol>
            <Problem failure={failure} />
          </Card>
          {operable && <Removal widget={widget.value} removed={() => (setRemoved(true), history.reload())} />}
          {rights.value && <ReadOnly rights={rights.value} />}
          <Problem failure={rights.failure} retry={rights.reload} />
        </>
      )}
      {/* Show nothing below content that is still to come, because it would be pushed down. */}
      {(removed || missing || (widget.value && settled)) && (
        <History {...history} serialNumber={serialNumber} />
      )}
    </>
  );
}

type HistoryProps = ReturnType<typeof useHistory> & { serialNumber: string };

function History({ seen, failure, searching, stopped, reload, stop, serialNumber }: HistoryProps) {
  return (
    <Card title="Changes" side={!failure && <a href={to.changes(serialNumber)}>Follow them</a>}>
      {(seen.length > 0 || !(failure || searching || stopped)) && <ChangeRows changes={seen} empty="No changes of this widget are kept." />}
      {searching && <Searching stop={stop} />}
      {stopped && <Stopped again={reload} />}
      <Problem failure={failure} />
    </Card>
  );
}

/** Removes the widget. If it has associations, which go with it, the serial number must be typed. */
function Removal({ widget, removed }: { widget: Widget; removed: () => void }) {
  const [asking, setAsking] = useState(false);
  const [typed, setTyped] = useState("");
  const [failure, setFailure] = useState<unknown>(null);
  // A refusal for lack of a token is over with another one.
  useToken(() => setFailure(null));
  const peers = widget.slots.filter((slot) => slot.peer !== null).length;
  // A form field cannot contain a line break: browsers remove it or make it a space.
  const wanted = ["", " "].map((end) => widget.serial_number.replace(/\r\n?|\n/g, end));
  const confirmed = peers === 0 || wanted.includes(typed);
  if (!asking) {
    return (
      <button type="button" class="danger" onClick={() => setAsking(true)}>
        Remove this widget…
      </button>
    );
  }
  return (
    <>
      <form
        class="card"
        onSubmit={(event) => {
          event.preventDefault();
          if (!confirmed) return;
          setFailure(null);
          operate("remove_widget", { widget_sn: widget.serial_number }).then(removed, setFailure);
        }}
      >
        {peers > 0 ? (
          <label>
            {peers === 1 ? "Its association goes with it." : `Its ${peers} associations go with it.`} Type the serial
            number to remove it:
            <input value={typed} autocomplete="off" spellcheck={false} onInput={(event) => setTyped(event.currentTarget.value)} />
          </label>
        ) : (
          <p>It has no associations.</p>
        )}
        <div class="buttons">
          <button type="submit" class="danger" disabled={!confirmed}>
            Remove it
          </button>
          <button type="button" class="quiet" onClick={() => setAsking(false)}>
            Keep it
          </button>
        </div>
        <details>
          <summary>As a shell command</summary>
          <Copyable text={curl("remove_widget", { widget_sn: widget.serial_number })} label="As a shell command" />
        </details>
      </form>
      {/* Outside of the form: it may contain a form for another token, and no form may contain another one. */}
      <Problem failure={failure} />
    </>
  );
}
