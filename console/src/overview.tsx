// What the registry contains and how the service is, live from its metrics.

import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, ask, count, isEmpty } from "./api";
import { Begin } from "./begin";
import { Chart } from "./chart";
import { type Sample, parse, quantile, total } from "./metrics";
import { Health } from "./health";
import { Card, Port, Problem, number, to, useLoaded, useToken } from "./parts";

const INTERVAL_MS = 2_000;
/** How many readings are kept: five minutes. */
const READINGS_MAX = 150;
/** How long counting may take. On PostgreSQL it takes longer the more widgets there are. */
const COUNT_MS = 1_000;
const DURATION = "widgets_request_duration_seconds";

interface Reading {
  at: number;
  samples: Sample[];
  /** Per second since the previous reading. */
  operations: number | null;
  refused: number | null;
  p99Ms: number | null;
}

export function Overview() {
  const service = useService();
  const { readings, failure, withheld } = useReadings();
  const last = readings.at(-1)?.samples;
  const empty = useEmpty();
  const [example, setExample] = useState(false);
  // If the caller may not read the metrics, the widgets are counted, but only if that is fast.
  const counted = useLoaded(`count ${withheld} ${empty.value}`, async (signal) =>
    withheld ? count("", AbortSignal.any([signal, AbortSignal.timeout(COUNT_MS)])) : null,
  );
  // Show nothing yet that later content would push away.
  if (empty.value === null && !empty.failure) return <h1>Overview</h1>;
  const widgets = last ? total(last, "widgets_widgets") : null;
  const follows = last && total(last, "widgets_replication_follows");
  const data = [
    readings.map((reading) => reading.at),
    readings.map((reading) => reading.operations),
    readings.map((reading) => reading.refused),
  ];
  // In place of withheld figures there may be a form for a token already. One is enough.
  const asks = withheld && isUnauthorised(failure) && isUnauthorised(empty.failure);
  const problem = withheld ? !asks && empty.failure : failure ?? empty.failure;
  const latency = [readings.map((reading) => reading.at), readings.map((reading) => reading.p99Ms)];
  return (
    <>
      <h1>Overview</h1>
      {(example || empty.value) && <Begin began={() => setExample(true)} />}
      <div class="figures">
        <Figure name="Widgets" value={number(widgets ?? counted.value)} href={to.widgets("")} />
        {!withheld && <Figure name="Associations" value={number(last && total(last, "widgets_associations"))} />}
        {!withheld && <FreeSlots samples={last} />}
        <Figure name="Service" value={service === "ready" && follows ? "standby" : service} state={service === "ready" ? "good" : "bad"} />
      </div>
      {withheld ? (
        <Withheld failure={failure} />
      ) : (
        <>
          <div class="columns">
            <Card title="Requests a second">
              <Chart
                series={[
                  { label: "done", colour: "--accent" },
                  { label: "refused", colour: "--bad" },
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
          {last && <Health samples={last} earlier={readings[0]!.samples} />}
        </>
      )}
      <Problem failure={problem} />
    </>
  );
}

/** Explains why there are no live figures: not everybody may read them. */
function Withheld({ failure }: { failure: unknown }) {
  const hidden = failure instanceof Failure && failure.status === 404;
  return (
    <Card title="Live figures">
      {isUnauthorised(failure) ? (
        <Problem failure={failure} />
      ) : (
        <p role="note">
          Rates, latency and health come from <code>/metrics</code>,{" "}
          {hidden
            ? "which the proxy in front of the service does not pass on."
            : "which the admin role may read. Enter a token with that role at the top."}
        </p>
      )}
    </Card>
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
  // The line keeps its place until the figures come. A service of before has no numbers by port.
  const shown = !samples || ports.some(([, free]) => free !== null);
  return (
    <div class="figure">
      <span>Free slots</span>
      <strong>{number(samples && total(samples, "widgets_free_slots"))}</strong>
      {shown && (
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

/** Returns in a word whether the service answers and accepts operations. */
function useService(): string {
  const [service, setService] = useState("…");
  useEvery(async () => {
    try {
      await ask("ready");
      setService("ready");
    } catch (failure) {
      setService(failure instanceof Failure && failure.status === 0 ? "no answer" : "not ready");
    }
    return true;
  });
  return service;
}

/** Returns whether the registry is empty. Asks until there is an answer, and for as long as it is empty. */
function useEmpty(): { value: boolean | null; failure: unknown } {
  const [state, setState] = useState<{ value: boolean | null; failure: unknown }>({ value: null, failure: null });
  useEvery(async (signal) => {
    try {
      const value = await isEmpty(signal);
      setState({ value, failure: null });
      return value;
    } catch (failure) {
      if (!signal.aborted) setState(({ value }) => ({ value, failure }));
      // Only a token can change this answer.
      return !isUnauthorised(failure);
    }
  });
  return state;
}

/** Reads the metrics. `withheld` means that this caller may not, so that the console stops asking. */
function useReadings(): { readings: Reading[]; failure: unknown; withheld: boolean } {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [failure, setFailure] = useState<unknown>(null);
  const withheld = isWithheld(failure);
  useEvery(async () => {
    try {
      const samples = parse(await (await ask("metrics", { accept: "*/*" })).text());
      const at = Date.now() / 1000;
      setReadings((readings) => [...readings, reading(readings.at(-1), at, samples)].slice(-READINGS_MAX));
      setFailure(null);
    } catch (failure) {
      setFailure(failure);
      return !isWithheld(failure);
    }
    return true;
  });
  return { readings: withheld ? [] : readings, failure, withheld };
}

const isUnauthorised = (failure: unknown): boolean => failure instanceof Failure && failure.status === 401;

const isWithheld = (failure: unknown): boolean => failure instanceof Failure && [401, 403, 404].includes(failure.status);

function reading(before: Reading | undefined, at: number, samples: Sample[]): Reading {
  const counted = (samples: Sample[]): [number, number] => {
    const done = total(samples, "widgets_requests_total", { outcome: "ok" }) ?? 0;
    return [done, (total(samples, "widgets_requests_total") ?? 0) - done];
  };
  const [done, refused] = counted(samples);
  const then = before && counted(before.samples);
  // After a restart, all counters start from zero.
  const rate = (now: number, then: number | undefined): number | null =>
    before && then !== undefined && now >= then ? (now - then) / (at - before.at) : null;
  const p99 = before && quantile(before.samples, samples, DURATION, {}, 0.99);
  const p99Ms = p99 === null || p99 === undefined || !Number.isFinite(p99) ? null : p99 * 1000;
  return { at, samples, operations: rate(done, then?.[0]), refused: rate(refused, then?.[1]), p99Ms };
}

/**
 * Repeats the work from now on for as long as it returns true, never twice at once, and not while the page is hidden.
 * Starts again when the token changes; the signal tells the work that its result is no longer wanted.
 */
function useEvery(work: (signal: AbortSignal) => Promise<boolean>): void {
  const [turn, setTurn] = useState(0);
  useToken(() => setTurn((turn) => turn + 1));
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    const controller = new AbortController();
    const { signal } = controller;
    const turn = async (): Promise<void> => {
      const goOn = document.visibilityState !== "visible" || (await latest.current(signal));
      if (goOn && !signal.aborted) timer = setTimeout(turn, INTERVAL_MS);
    };
    void turn();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [turn]);
}
