// Follows the changes of the service, within the limits of a page.

import { useEffect, useRef, useState } from "preact/hooks";
import { type Change, Failure, changes } from "./api";
import { useToken } from "./parts";

/** How long the service is asked to wait for a change. */
const WAIT_MS = 15_000;
/** How long to rest between two answers, so that a page with many changes stays responsive. */
const REST_MS = 250;
/** How long to wait before asking again when the service does not answer. */
const RETRY_MS = 2_000;
/** How many changes stay on the screen, and how many one request asks for. */
export const SHOWN_MAX = 200;
/** Codes of a service that has no changes to send: a store without a feed, and a position that is no longer kept. */
const [NO_CHANGES, GONE] = ["WG501", "WG410"];

export type From = "oldest" | "now";

interface Followed {
  /** The changes, newest first. */
  seen: Change[];
  failure: unknown;
  /** Whether the service has answered, so that all changes from now on are seen. */
  follows: boolean;
  /** Whether more changes happened than are shown. */
  missed: boolean;
  /** Continues after a full screen of old changes. */
  more: (() => void) | null;
}

/**
 * Follows the changes of a widget (or of all if it is empty) and of an operation, from now on or from the oldest change on.
 * New changes are shown as they happen; if there are too many, some are left out. Old changes are shown a screen at a time.
 */
export function useChanges(widget: string, operation: string, from: From, paused: boolean): Followed {
  const [seen, setSeen] = useState<Change[]>([]);
  const [failure, setFailure] = useState<unknown>(null);
  const [follows, setFollows] = useState(false);
  const [missed, setMissed] = useState(false);
  const [full, setFull] = useState(false);
  const [turn, setTurn] = useState(0);
  useToken(() => setTurn((turn) => turn + 1));
  /** Where to continue after a pause. */
  const place = useRef<{ key: string; after: string | null }>({ key: "", after: null });
  const key = JSON.stringify([widget, operation, from]);
  useEffect(() => {
    const fresh = place.current.key !== key;
    if (fresh) {
      place.current = { key, after: from === "now" ? "now" : null };
      setSeen([]);
      setFollows(false);
      setMissed(false);
      setFull(false);
    }
    setFailure(null);
    if (paused || (full && !fresh)) return;
    const controller = new AbortController();
    const { signal } = controller;
    // The first answer comes at once and says where to continue.
    let wait = place.current.after === null || place.current.after === "now" ? 0 : WAIT_MS;
    const follow = async (): Promise<void> => {
      while (!signal.aborted) {
        try {
          const page = await changes(queryOf(widget, operation, place.current.after, wait), signal);
          const isFull = page.changes.length === SHOWN_MAX;
          wait = WAIT_MS;
          place.current.after = isFull && from === "now" ? "now" : page.next;
          setSeen((seen) => [...page.changes.toReversed(), ...seen].slice(0, SHOWN_MAX));
          setFailure(null);
          setFollows(true);
          if (isFull && from === "now") {
            wait = 0;
            setMissed(true);
          }
          if (isFull && from === "oldest") return setFull(true);
          await rest(REST_MS, signal);
        } catch (failure) {
          if (signal.aborted) return;
          setFailure(failure);
          if (failure instanceof Failure && failure.code === GONE) place.current.after = null;
          else if (isFinal(failure)) return;
          await rest(RETRY_MS, signal);
        }
      }
    };
    void follow();
    return () => controller.abort();
  }, [key, paused, full, turn]);
  return { seen, failure, follows, missed, more: full ? () => setFull(false) : null };
}

function queryOf(widget: string, operation: string, after: string | null, wait: number): string {
  const query = new URLSearchParams({ limit: String(SHOWN_MAX), wait_ms: String(wait) });
  if (after !== null) query.set("after", after);
  if (widget) query.set("widget_sn", `eq.${widget}`);
  if (operation) query.set("operation", `in.(${operation})`);
  return query.toString();
}

/** Returns whether only a person can resolve the failure, so that asking again is useless. */
function isFinal(failure: unknown): boolean {
  if (!(failure instanceof Failure) || failure.status === 429) return false;
  return (failure.status >= 400 && failure.status < 500) || failure.code === NO_CHANGES;
}

function rest(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      // The signal lives as long as the screen, and would keep a listener for each rest.
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}

/** How many of a widget's changes its page shows. */
const HISTORY_MAX = 50;
/** How many changes one request of the search asks for. */
const PAGE_MAX = 1_000;

interface History {
  /** The changes, newest first. */
  seen: Change[];
  failure: unknown;
  searching: boolean;
  /** Whether somebody stopped the search, so that there may be more changes. */
  stopped: boolean;
  reload: () => void;
  stop: () => void;
}

/** Loads the latest changes of a widget. The service searches from its oldest change on, which may take a while. */
export function useHistory(widget: string): History {
  const [state, setState] = useState<Omit<History, "reload" | "stop">>({ seen: [], failure: null, searching: true, stopped: false });
  const [turn, setTurn] = useState(0);
  useToken(() => setTurn((turn) => turn + 1));
  const under = useRef<AbortController | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    under.current = controller;
    // A search that was stopped, or that a later one replaced, must not overwrite what is shown since.
    const show = (found: { seen: Change[]; failure: unknown; searching: boolean }): void => {
      if (!signal.aborted) setState({ ...found, stopped: false });
    };
    const search = async (): Promise<void> => {
      let seen: Change[] = [];
      let after: string | null = null;
      try {
        const { next: end } = await changes("after=now&limit=1", signal);
        // The positions of one store sort by age.
        while (end !== null && (after === null || after < end)) {
          const query = new URLSearchParams({ widget_sn: `eq.${widget}`, limit: String(PAGE_MAX) });
          if (after !== null) query.set("after", after);
          const page = await changes(query.toString(), signal);
          seen = [...page.changes.toReversed(), ...seen].slice(0, HISTORY_MAX);
          if (page.next === null || page.next === after) break;
          after = page.next;
          show({ seen, failure: null, searching: after < end });
        }
        show({ seen, failure: null, searching: false });
      } catch (failure) {
        show({ seen, failure, searching: false });
      }
    };
    setState((state) => ({ ...state, failure: null, searching: true, stopped: false }));
    void search();
    return () => controller.abort();
  }, [widget, turn]);
  const stop = (): void => {
    under.current?.abort();
    setState((state) => ({ ...state, searching: false, stopped: true }));
  };
  return { ...state, reload: () => setTurn((turn) => turn + 1), stop };
}
