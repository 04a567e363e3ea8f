// How to begin with an empty registry.

import { useState } from "preact/hooks";
import { Failure, operate } from "./api";
import { Problem, ReadOnly, to, useRights } from "./parts";

/** Explains how to begin, and makes an example with one click. From `began` on, the registry is no longer empty. */
export function Begin({ began }: { began: () => void }) {
  const [made, setMade] = useState<number | null>(null);
  const [done, setDone] = useState(false);
  const [failure, setFailure] = useState<unknown>(null);
  const { value: rights, failure: unknown, reload } = useRights();
  const make = async (): Promise<void> => {
    setFailure(null);
    began();
    try {
      for (const [index, step] of EXAMPLE.entries()) {
        setMade(index);
        await operate(step[0], step[1]).catch((failure: unknown) => {
          // An earlier attempt that failed halfway has made this already.
          if (!(failure instanceof Failure && ["23505", "WG003"].includes(failure.code))) throw failure;
        });
      }
      setDone(true);
    } catch (failure) {
      setFailure(failure);
    }
    setMade(null);
  };
  if (done) {
    return (
      <section class="card" role="status">
        <h2>The example is ready</h2>
        <p>
          Eight widgets of a pump house. <a href={to.near("PUMP-1")}>See what a pump is connected to</a>, look at{" "}
          <a href={to.widgets("")}>all of them</a>, or add one of your own under <a href="#/operations">Operations</a>.
        </p>
      </section>
    );
  }
  return (
    <section class="card">
      <h2>The registry is empty</h2>
      {rights?.operate === false ? (
        <ReadOnly rights={rights} />
      ) : (
        <>
          <p>
            Add a widget under <a href="#/operations">Operations</a>, or make a small example to look at: eight widgets
            of a pump house, joined port to port.
          </p>
          <button type="button" disabled={made !== null || !rights?.operate} onClick={make}>
            {made === null ? "Make the example" : `Making it: ${made} of ${EXAMPLE.length}`}
          </button>
        </>
      )}
      <Problem failure={unknown} retry={reload} />
      <Problem failure={failure} />
    </section>
  );
}

const EXAMPLE = [
  ...(
    [
      ["PUMP-1", "feed pump", ["P", "R", "Q"]],
      ["PUMP-2", "feed pump, spare", ["P", "R", "Q"]],
      ["VALVE-1", "inlet valve", ["P", "P"]],
      ["VALVE-2", "outlet valve", ["R", "P"]],
      ["TANK-1", "buffer tank", ["P", "R", "R"]],
      ["METER-1", "flow meter", ["R", "Q"]],
      ["PANEL-1", "control panel", ["Q", "Q", "Q"]],
      ["SENSOR-1", "level sensor", ["Q"]],
    ] as const
  ).map(([widget_sn, widget_name, slots]) => ["add_widget", { widget_sn, widget_name, slots }] as const),
  ...(
    [
      ["VALVE-1", "PUMP-1", "P"],
      ["VALVE-1", "TANK-1", "P"],
      ["PUMP-1", "VALVE-2", "R"],
      ["VALVE-2", "PUMP-2", "P"],
      ["PUMP-2", "TANK-1", "R"],
      ["TANK-1", "METER-1", "R"],
      ["METER-1", "PANEL-1", "Q"],
      ["PUMP-1", "PANEL-1", "Q"],
      ["SENSOR-1", "PANEL-1", "Q"],
    ] as const
  ).map(([widget1_sn, widget2_sn, port]) => ["associate_widgets", { widget1_sn, widget2_sn, port }] as const),
];
