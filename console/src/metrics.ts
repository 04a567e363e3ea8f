// Parses the service's metrics in Prometheus' text format, as far as the overview needs them.

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function parse(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)/.exec(line);
    if (!match || line.startsWith("#")) continue;
    const labels: Record<string, string> = {};
    for (const label of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[label[1]!] = label[2]!;
    const value = match[3] === "+Inf" ? Infinity : Number(match[3]);
    samples.push({ name: match[1]!, labels, value });
  }
  return samples;
}

/** Returns the sum over all samples with this name and these labels, or `null` if there are none. */
export function total(samples: Sample[], name: string, labels: Record<string, string> = {}): number | null {
  const found = samples.filter(
    (sample) => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : null;
}

/** Returns an upper bound on a quantile between two readings: the bound of the quantile's bucket. */
export function quantile(
  before: Sample[],
  after: Sample[],
  name: string,
  labels: Record<string, string>,
  q: number,
): number | null {
  const counts = (samples: Sample[]): Map<number, number> => {
    const buckets = new Map<number, number>();
    for (const sample of samples) {
      if (sample.name !== `${name}_bucket`) continue;
      if (!Object.entries(labels).every(([label, value]) => sample.labels[label] === value)) continue;
      const bound = sample.labels["le"] === "+Inf" ? Infinity : Number(sample.labels["le"]);
      buckets.set(bound, (buckets.get(bound) ?? 0) + sample.value);
    }
    return buckets;
  };
  const then = counts(before);
  const buckets = [...counts(after)].map(([bound, value]) => [bound, value - (then.get(bound) ?? 0)] as const);
  buckets.sort(([one], [other]) => one - other);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  return buckets.find(([, value]) => value >= q * all)?.[0] ?? null;
}
