// What is there, and how the service is: live, from its metrics.

import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, ask, count, operate } from "./api";
import { Chart } from "./chart";
import { type Sample, parse, quantile, total } from "./metrics";
import { Card, Port, Problem, number, to, useLoaded } from "./parts";

const INTERVAL_MS = 2_000;
/** So many readings are kept: five minutes. */
const READINGS_MAX = 150;
const DURATION = "widgets_request_duration_seconds";

interface Reading {
  at: number;
  samples: Sample[];
  /** Per second since the reading before. */
  operations: number | null;
  refused: number | null;
  p99Ms: number | null;
}

export function Overview() {
  const ready = useReady();
  const { readings, failure } = useReadings();
  const last = readings.at(-1)?.samples;
  const widgets = useLoaded("count", (signal) => count("", signal));
  const there = last ? total(last, "widgets_widgets") ?? widgets.value : widgets.value;
  const data = [
    readings.map((reading) => reading.at),
    readings.map((reading) => reading.operations),
    readings.map((reading) => reading.refused),
  ];
  const latency = [readings.map((reading) => reading.at), readings.map((reading) => reading.p99Ms)];
  return (
    <>
      <h1>Overview</h1>
      {there === 0 && <Empty done={widgets.reload} />}
      <div class="figures">
        <Figure name="Widgets" value={number(there)} href={to.widgets("")} />
        <Figure name="Associations" value={number(last && total(last, "widgets_associations"))} />
        <FreeSlots samples={last} />
        <Figure name="Service" value={ready === null ? "…" : ready ? "ready" : "not ready"} state={ready === false ? "bad" : "good"} />
      </div>
      {failure ? (
        <Card title="Live figures">
          <p>
            The live figures come from <code>/metrics</code>, which the admin role may read.
          </p>
          <Problem failure={failure} />
        </Card>
      ) : (
        <>
          <div class="columns">
            <Card title="Requests a second">
              <Chart
                series={[
                  { label: "done", colour: "--accent" },
                  { label: "refused or failed", colour: "--bad" },
                ]}
                data={data}
                unit="/s"
                label="Requests a second over the last minutes"
              />
            </Card>
            <Card title="99 % are faster than">
              <Chart series={[{ label: "p99", colour: "--accent" }]} data={latency} unit="ms" label="The 99th percentile of latency" />
            </Card>
          </div>
          {last && <Health samples={last} />}
        </>
      )}
    </>
  );
}

function Figure({ name, value, href, state }: { name: string; value: string; href?: string; state?: "good" | "bad" }) {
  const shown = <strong class={state}>{value}</strong>;
  return (
    <div class="figure">
      <span>{name}</span>
      {href ? <a href={href}>{shown}</a> : shown}
    </div>
  );
}

function FreeSlots({ samples }: { samples: Sample[] | undefined }) {
  const ports = ["P", "R", "Q"].map((port) => [port, samples ? total(samples, "widgets_free_slots", { port }) : null] as const);
  const known = ports.some(([, free]) => free !== null);
  return (
    <div class="figure">
      <span>Free slots</span>
      <strong>{number(samples && total(samples, "widgets_free_slots"))}</strong>
      {known && (
        <span class="ports">
          {ports.map(([port, free]) => (
            <span key={port}>
              <Port port={port} free /> {number(free)}
            </span>
          ))}
        </span>
      )}
    </div>
  );
}

/** Store and machine, as far as the metrics of this store tell. */
function Health({ samples }: { samples: Sample[] }) {
  const bytes = (name: string): string | null => {
    const value = total(samples, name);
    return value === null ? null : size(value);
  };
  const mean = (name: string): string | null => {
    const [sum, times] = [total(samples, `${name}_sum`), total(samples, `${name}_count`)];
    return sum === null || !times ? null : `${((sum / times) * 1000).toPrecision(2)} ms`;
  };
  const rows: [string, string | null][] = [
    ["Waiting for the store", number(total(samples, "widgets_queue_operations"))],
    ["A commit takes, on average", mean("widgets_commit_duration_seconds")],
    ["Journal since the last checkpoint", bytes("widgets_journal_bytes")],
    ["Checkpoints written", total(samples, "widgets_checkpoints_total", { outcome: "ok" })?.toString() ?? null],
    ["Checkpoints failed", total(samples, "widgets_checkpoints_total", { outcome: "failed" })?.toString() ?? null],
    ["Memory", bytes("process_resident_memory_bytes")],
    ["Free on the disk", bytes("widgets_disk_free_bytes")],
    ["Connections", number(total(samples, "widgets_connections"))],
    ["Archive is behind by", seconds(total(samples, "widgets_archive_lag_seconds"))],
    ["Standby is behind by", seconds(total(samples, "widgets_standby_lag_seconds"))],
    ["Version", samples.find((sample) => sample.name === "widgets_build_info")?.labels["version"] ?? null],
  ];
  return (
    <Card title="Health">
      <dl class="health">
        {rows
          .filter(([, value]) => value !== null && value !== "–")
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
    </Card>
  );
}

const seconds = (value: number | null): string | null => (value === null ? null : `${value.toPrecision(2)} s`);

function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** How to begin, with one click to make something to look at. */
function Empty({ done }: { done: () => void }) {
  const [made, setMade] = useState<number | null>(null);
  const [failure, setFailure] = useState<unknown>(null);
  const make = async (): Promise<void> => {
    setFailure(null);
    try {
      for (const [index, step] of EXAMPLE.entries()) {
        setMade(index);
        await operate(step[0], step[1]).catch((failure: unknown) => {
          // Made before, and asked for again after something failed halfway.
          if (!(failure instanceof Failure && ["23505", "WG003"].includes(failure.code))) throw failure;
        });
      }
      done();
    } catch (failure) {
      setFailure(failure);
    }
    setMade(null);
  };
  return (
    <section class="card begin">
      <h2>The registry is empty</h2>
      <p>
        Register a widget under <a href="#/operations">Operations</a>, or make a small example to look at: eight
        widgets of a pump house, joined port to port.
      </p>
      <button type="button" disabled={made !== null} onClick={make}>
        {made === null ? "Make the example" : `Making it: ${made} of ${EXAMPLE.length}`}
      </button>
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

function useReady(): boolean | null {
  const [ready, setReady] = useState<boolean | null>(null);
  useEvery(async () => {
    try {
      await ask("ready");
      setReady(true);
    } catch {
      setReady(false);
    }
  });
  return ready;
}

function useReadings(): { readings: Reading[]; failure: unknown } {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [failure, setFailure] = useState<unknown>(null);
  useEvery(async () => {
    try {
      const samples = parse(await (await ask("metrics", { accept: "*/*" })).text());
      const at = Date.now() / 1000;
      setReadings((readings) => [...readings, reading(readings.at(-1), at, samples)].slice(-READINGS_MAX));
      setFailure(null);
    } catch (failure) {
      setFailure(failure);
    }
  });
  return { readings, failure };
}

function reading(before: Reading | undefined, at: number, samples: Sample[]): Reading {
  const counted = (samples: Sample[]): [number, number] => {
    const done = total(samples, "widgets_requests_total", { outcome: "ok" }) ?? 0;
    return [done, (total(samples, "widgets_requests_total") ?? 0) - done];
  };
  const [done, refused] = counted(samples);
  const then = before && counted(before.samples);
  // After a restart everything is counted from nothing again.
  const rate = (now: number, then: number | undefined): number | null =>
    before && then !== undefined && now >= then ? (now - then) / (at - before.at) : null;
  const p99 = before && quantile(before.samples, samples, DURATION, {}, 0.99);
  const p99Ms = p99 === null || p99 === undefined || !Number.isFinite(p99) ? null : p99 * 1000;
  return { at, samples, operations: rate(done, then?.[0]), refused: rate(refused, then?.[1]), p99Ms };
}

/** Does something now and again and again, never twice at once, and not while nobody looks. */
function useEvery(work: () => Promise<void>): void {
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    let ended = false;
    const turn = async (): Promise<void> => {
      if (document.visibilityState === "visible") await latest.current();
      if (!ended) timer = setTimeout(turn, INTERVAL_MS);
    };
    void turn();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, []);
}
