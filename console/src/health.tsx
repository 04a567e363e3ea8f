// The state of the store, the archive and the machine, from the metrics of this service.

import { type Sample, total } from "./metrics";
import { Card, number } from "./parts";

/** The lag, in seconds, from which an archive or a standby is not merely waiting for its turn. */
const LATE_S = 5;
/** The lag, in seconds, from which something is wrong, even if the cause is unknown. */
const BEHIND_S = 60;

/** A line: its name, its value, and whether somebody has to act. */
type Row = [name: string, value: string | null, bad?: boolean];

/** Shows the state of the store, the archive and the machine from the current metrics and those of some minutes ago. */
export function Health({ samples, earlier }: { samples: Sample[]; earlier: Sample[] }) {
  const bytes = (name: string): string | null => {
    const value = total(samples, name);
    return value === null ? null : size(value);
  };
  const mean = (name: string): string | null => {
    const [sum, times] = [total(samples, `${name}_sum`), total(samples, `${name}_count`)];
    return sum === null || !times ? null : `${((sum / times) * 1000).toPrecision(2)} ms`;
  };
  const readOnly = total(samples, "widgets_store_read_only");
  const follows = total(samples, "widgets_replication_follows");
  const failed = total(samples, "widgets_checkpoints_total", { outcome: "failed" });
  const rows: Row[] = [
    ["Writes", readOnly === null ? null : readOnly ? "refused until a restart: a sync failed" : follows ? "at its primary" : "accepted", !!readOnly],
    ["Waiting for the store", number(total(samples, "widgets_queue_operations"))],
    ["Average commit time", mean("widgets_commit_duration_seconds")],
    ["Journal since the last checkpoint", bytes("widgets_journal_bytes")],
    ["Checkpoints written", total(samples, "widgets_checkpoints_total", { outcome: "ok" })?.toString() ?? null],
    ["Checkpoints failed", failed?.toString() ?? null, !!failed],
    ...standby(samples),
    archive(samples, earlier),
    ["Archive is behind by", seconds(total(samples, "widgets_archive_behind_seconds"))],
    ["Connections to the database", number(total(samples, "widgets_database_connections"))],
    ["Operations waiting for locked widgets", number(total(samples, "widgets_locked_operations"))],
    ["Lists that scan", number(total(samples, "widgets_scans"))],
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
          .map(([name, value, bad]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd class={bad ? "bad" : undefined}>{value}</dd>
            </div>
          ))}
      </dl>
    </Card>
  );
}

/** Returns how many standbys a primary has, or how a standby follows its primary. */
function standby(samples: Sample[]): Row[] {
  if (!total(samples, "widgets_replication_follows")) {
    const standbys = total(samples, "widgets_replication_standbys");
    return [["Standbys", standbys ? number(standbys) : null]];
  }
  const connected = !!total(samples, "widgets_replication_connected");
  const behind = total(samples, "widgets_replication_behind_seconds");
  return [
    ["Its primary", connected ? "is followed" : "does not answer: retrying", !connected],
    ["Behind its primary by", seconds(behind), (behind ?? 0) >= LATE_S],
  ];
}

/** Why archiving fails, by the metric's label. */
const FAILURES: Record<string, string> = {
  unavailable: "unavailable: retrying",
  missing: "missing: retrying",
  refused: "refuses access: retrying",
  store: "the journal cannot be read",
};

/** Returns the state of the archive, if there is one. */
function archive(samples: Sample[], earlier: Sample[]): Row {
  const stopped = total(samples, "widgets_archive_stopped");
  const behind = total(samples, "widgets_archive_behind_seconds") ?? 0;
  const failures = (samples: Sample[], reason: string): number =>
    total(samples, "widgets_archive_failures_total", { reason }) ?? 0;
  const why = Object.keys(FAILURES).find((reason) => failures(samples, reason) > failures(earlier, reason));
  if (stopped === null) return ["Archive", null];
  if (stopped > 0) return ["Archive", "stopped: another store owns it", true];
  if (behind >= LATE_S && why !== undefined) return ["Archive", FAILURES[why]!, true];
  if (behind >= BEHIND_S) return ["Archive", "falling behind", true];
  if (total(samples, "widgets_archive_gaps_total")) return ["Archive", "has gaps", true];
  return ["Archive", "active"];
}

const seconds = (value: number | null): string | null => (value === null ? null : `${value} s`);

function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}
