// Store, archive and machine, as far as the metrics of this service tell.

import { type Sample, total } from "./metrics";
import { Card, number } from "./parts";

/** Store and machine, as far as the metrics of this store tell. */
export function Health({ samples }: { samples: Sample[] }) {
  const bytes = (name: string): string | null => {
    const value = total(samples, name);
    return value === null ? null : size(value);
  };
  const mean = (name: string): string | null => {
    const [sum, times] = [total(samples, `${name}_sum`), total(samples, `${name}_count`)];
    return sum === null || !times ? null : `${((sum / times) * 1000).toPrecision(2)} ms`;
  };
  const readOnly = total(samples, "widgets_store_read_only");
  const rows: [string, string | null][] = [
    ["Writes", readOnly === null ? null : readOnly ? "none until a restart: a sync failed" : "accepted"],
    ["Waiting for the store", number(total(samples, "widgets_queue_operations"))],
    ["A commit takes, on average", mean("widgets_commit_duration_seconds")],
    ["Journal since the last checkpoint", bytes("widgets_journal_bytes")],
    ["Checkpoints written", total(samples, "widgets_checkpoints_total", { outcome: "ok" })?.toString() ?? null],
    ["Checkpoints failed", total(samples, "widgets_checkpoints_total", { outcome: "failed" })?.toString() ?? null],
    ["Archive", archive(samples)],
    ["Archive is behind by", seconds(total(samples, "widgets_archive_behind_seconds"))],
    ["Connections to the database", number(total(samples, "widgets_database_connections"))],
    ["Operations that wait for locked widgets", number(total(samples, "widgets_locked_operations"))],
    ["Lists that search", number(total(samples, "widgets_scans"))],
    ["Streams of changes", number(total(samples, "widgets_changes_subscribers"))],
    ["Memory", bytes("process_resident_memory_bytes")],
    ["Free on the disk", bytes("widgets_disk_free_bytes")],
    ["Connections", number(total(samples, "widgets_connections"))],
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

/** How the archive is, where there is one. */
function archive(samples: Sample[]): string | null {
  const stopped = total(samples, "widgets_archive_stopped");
  if (stopped === null) return null;
  if (stopped > 0) return "stopped: it is another's";
  return total(samples, "widgets_archive_gaps_total") ? "has gaps" : "is written";
}

const seconds = (value: number | null): string | null => (value === null ? null : `${value.toFixed(1)} s`);

function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}
