// A line chart of the last minutes, in the colours of the page.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export interface Series {
  label: string;
  colour: string;
}

interface Props {
  series: Series[];
  /** The times in seconds, and the values of each series. */
  data: (number | null)[][];
  unit: string;
  label: string;
}

const HEIGHT = 180;
/** How many seconds the chart spans, even with less data, so that the axis does not jump. */
const SPAN_SECONDS = 300;

type Value = number | null | undefined;
const known = (value: Value): value is number => value !== null && value !== undefined;
const two = (value: number): string => String(value).padStart(2, "0");
const minute = (seconds: number): string => {
  const time = new Date(seconds * 1000);
  return `${two(time.getHours())}:${two(time.getMinutes())}`;
};

export function Chart({ series, data, unit, label }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  // Before the first paint: on a phone the legend takes two lines, and would push what is below it down.
  useLayoutEffect(() => {
    const element = box.current!;
    const make = (): void => {
      plot.current?.destroy();
      const colour = (name: string): string => getComputedStyle(element).getPropertyValue(name).trim();
      const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
      // Before the first reading there is no value at all.
      const value = (_: uPlot, value: Value): string => (known(value) ? `${format(value)} ${unit}` : "–");
      plot.current = new uPlot(
        {
          width: element.clientWidth,
          height: HEIGHT,
          cursor: { drag: { x: false, y: false } },
          scales: {
            x: { range: (_plot, _low, high) => [high - SPAN_SECONDS, high] },
            y: { range: (_plot, _low, high) => [0, Math.max(high ?? 0, 1) * 1.1] },
          },
          axes: [
            { ...axis, size: 30, incrs: [60, 120], values: (_plot, ticks) => ticks.map(minute) },
            { ...axis, size: 60, values: (_plot, ticks) => ticks.map(format) },
          ],
          series: [
            { value: (_, seconds: Value) => (known(seconds) ? minute(seconds) : "–") },
            ...series.map(({ label, colour: name }) => ({
              label,
              stroke: colour(name),
              width: 2,
              value,
              spanGaps: false,
              points: { show: true, filter: alone, fill: colour(name), size: 6 },
            })),
          ],
        },
        data as uPlot.AlignedData,
        element,
      );
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    return () => {
      resized.disconnect();
      scheme.removeEventListener("change", make);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => {
    plot.current?.setData(data as uPlot.AlignedData);
    // Unless the cursor points at a moment, the legend shows the last one.
    const last = data[0]!.length - 1;
    if (plot.current && last >= 0 && (plot.current.cursor.left ?? -1) < 0) plot.current.setLegend({ idx: last });
  }, [data]);
  return <div class="chart" ref={box} role="img" aria-label={label} />;
}

/** Returns the values without a neighbour, which are drawn as points because a line would not show them. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series]!;
  const [first, last] = plot.series[0]!.idxs ?? [0, values.length - 1];
  const found: number[] = [];
  for (let index = first; index <= last; index++) {
    if (known(values[index]) && !known(values[index - 1]) && !known(values[index + 1])) found.push(index);
  }
  return found;
}

function format(value: Value): string {
  if (!known(value)) return "";
  const rounded = value >= 100 ? Math.round(value) : Number(value.toPrecision(2));
  return rounded.toLocaleString("en");
}
