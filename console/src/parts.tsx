// Parts that several screens share.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Rights, type Slot, Failure, beginningWith, rights, token } from "./api";
import { explain, messageOf } from "./explain";

/** A link to a screen; the address after `#` says which one. */
export const to = {
  widget: (serialNumber: string): string => `#/widget/${encodeURIComponent(serialNumber)}`,
  near: (serialNumber: string): string => `#/near/${encodeURIComponent(serialNumber)}`,
  widgets: (query: string): string => `#/widgets${query ? `?${query}` : ""}`,
  changes: (serialNumber: string): string => `#/changes?widget_sn=${encodeURIComponent(serialNumber)}`,
};

/** A text that somebody chose: isolated, so that its direction turns nothing around it. */
export function Text({ children }: { children: string }) {
  return <bdi class="text">{children === "" ? <span class="faint">(empty)</span> : children}</bdi>;
}

export function WidgetLink({ serialNumber }: { serialNumber: string }) {
  return (
    <a href={to.widget(serialNumber)} title={serialNumber}>
      <Text>{serialNumber}</Text>
    </a>
  );
}

/** A port type by its letter and its colour. */
export function Port({ port, free }: { port: string; free?: boolean }) {
  return <span class={`port port-${port}${free ? " free" : ""}`}>{port}</span>;
}

export function Slots({ slots }: { slots: Slot[] }) {
  if (!slots.length) return <span class="faint">none</span>;
  return (
    <ul class="slots">
      {slots.map((slot, index) => (
        <li key={index}>
          <Port port={slot.port} free={slot.peer === null} />
          {slot.peer === null ? <span class="faint">free</span> : <WidgetLink serialNumber={slot.peer} />}
        </li>
      ))}
    </ul>
  );
}

/** What went wrong: in words, with what the service said. */
export function Problem({ failure, retry }: { failure: unknown; retry?: (() => void) | undefined }) {
  if (!failure) return null;
  const words = explain(failure);
  const code = failure instanceof Failure ? failure.code : "";
  const unauthorised = failure instanceof Failure && failure.status === 401;
  // Whoever has said nothing yet has done nothing wrong.
  const asks = unauthorised && !token.get();
  return (
    <div class={asks ? "problem asks" : "problem"} role="alert">
      <p>{words ?? messageOf(failure)}</p>
      {words && (
        <p class="said">
          {code && <code>{code}</code>} <Text>{messageOf(failure)}</Text>
          {failure instanceof Failure && failure.details && <Text>{` ${failure.details}`}</Text>}
        </p>
      )}
      {unauthorised && <TokenForm />}
      {retry && !unauthorised && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Entering a token: it stays in this tab. */
export function TokenForm({ close }: { close?: () => void }) {
  const [value, setValue] = useState(token.get());
  return (
    <form
      class="token"
      onSubmit={(event) => {
        event.preventDefault();
        token.set(value.trim());
        close?.();
        dispatchEvent(new Event("token"));
      }}
    >
      <label>
        Token
        <input
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Use it in this tab</button>
      {token.get() && (
        <button
          type="button"
          class="quiet"
          onClick={() => {
            token.set("");
            close?.();
            dispatchEvent(new Event("token"));
          }}
        >
          Forget it
        </button>
      )}
    </form>
  );
}

/** So long a search goes on before anything is said of it. */
const PATIENCE_MS = 300;

/** That the service is searching, and how to stop it: it may have to look at all there is. */
export function Searching({ stop }: { stop: () => void }) {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, []);
  if (!shown) return null;
  return (
    <p class="nothing" role="status">
      Searching…{" "}
      <button type="button" class="quiet" onClick={stop}>
        Stop
      </button>
    </p>
  );
}

/** A card with a heading. */
export function Card({ title, children, side }: { title: string; children: ComponentChildren; side?: ComponentChildren }) {
  return (
    <section class="card">
      <header>
        <h2>{title}</h2>
        {side}
      </header>
      {children}
    </section>
  );
}

/** A line that can be copied. */
export function Copyable({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <div class="copyable">
      <pre tabIndex={0} role="region" aria-label={label}>
        {text}
      </pre>
      <button
        type="button"
        class="quiet"
        onClick={() => {
          // Where the browser allows none (no TLS), the text can still be selected.
          navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
        }}
      >
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

/** Hands a text to the browser as a file. */
export function download(name: string, type: string, content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

export interface Loaded<T> {
  value: T | null;
  failure: unknown;
  loading: boolean;
  /** Somebody gave up what was being loaded. */
  stopped: boolean;
  reload: () => void;
  stop: () => void;
}

/** Loads something when `key` changes; what is no longer wanted is given up. */
export function useLoaded<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ value: T | null; failure: unknown; loading: boolean; stopped: boolean }>({
    value: null,
    failure: null,
    loading: true,
    stopped: false,
  });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const under = useRef<AbortController | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    under.current = controller;
    const settled = { loading: false, stopped: false };
    setState((state) => ({ ...state, loading: true, stopped: false }));
    latest.current(controller.signal).then(
      (value) => controller.signal.aborted || setState({ value, failure: null, ...settled }),
      (failure) => controller.signal.aborted || setState({ value: null, failure, ...settled }),
    );
    return () => controller.abort();
  }, [key, turn]);
  const again = (): void => setTurn((turn) => turn + 1);
  useToken(again);
  const stop = (): void => {
    under.current?.abort();
    setState((state) => ({ ...state, loading: false, stopped: true }));
  };
  return { ...state, reload: again, stop };
}

/** Does something whenever another token is used in this tab. */
export function useToken(changed: () => void): void {
  const latest = useRef(changed);
  latest.current = changed;
  useEffect(() => {
    const heard = (): void => latest.current();
    addEventListener("token", heard);
    return () => removeEventListener("token", heard);
  }, []);
}

/** A standby may be made the primary at any time. */
const ROLE_MS = 5000;

/** What the caller may do here. */
export function useRights(): Loaded<Rights> {
  const loaded = useLoaded("rights", (signal) => rights(signal));
  const [promoted, setPromoted] = useState(false);
  const follows = loaded.value?.operate === false && loaded.value.because === "standby";
  useEffect(() => {
    if (!follows || promoted) return;
    const timer = setInterval(() => {
      // Asked beside what is shown, which stays as it is while nothing has changed.
      if (document.visibilityState === "visible") rights().then(({ operate }) => operate && setPromoted(true), () => {});
    }, ROLE_MS);
    return () => clearInterval(timer);
  }, [follows, promoted]);
  return follows && promoted ? { ...loaded, value: { operate: true } } : loaded;
}

/** What somebody who may only look is told where there would be something to do. */
export function ReadOnly({ rights }: { rights: Rights }) {
  if (rights.operate) return null;
  if (rights.because === "standby") {
    return (
      <p class="card" role="note">
        This is a standby: it shows everything, and changes nothing. What is to be changed is changed at its primary
        {/* Nothing but an address of the web is followed. */}
        {/^https?:\/\//.test(rights.primary) && (
          <>
            , <a href={`${rights.primary.replace(/\/$/, "")}/console/${location.hash}`}>{rights.primary}</a>
          </>
        )}
        .
      </p>
    );
  }
  return (
    <p class="card" role="note">
      You may look, and change nothing: the service does not let your role. A token of a role that may write is entered
      at the top.
    </p>
  );
}

const SUGGESTIONS = 8;
/** So long after a key the next one is awaited. */
const TYPING_MS = 150;

interface SerialNumberProps {
  id: string;
  value: string;
  placeholder?: string | undefined;
  onValue: (value: string) => void;
}

/** A field for the serial number of a widget that exists: it suggests those that begin like what is typed. */
export function SerialNumber({ id, value, placeholder, onValue }: SerialNumberProps) {
  const [typed, setTyped] = useState("");
  const [suggested, setSuggested] = useState<string[]>([]);
  useEffect(() => {
    if (!typed) return setSuggested([]);
    const controller = new AbortController();
    const timer = setTimeout(() => {
      // What is only a help fails without a word.
      beginningWith(typed, SUGGESTIONS, controller.signal).then(setSuggested, () => {});
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [typed]);
  return (
    <>
      <input
        value={value}
        placeholder={placeholder}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        list={id}
        onInput={(event) => {
          onValue(event.currentTarget.value);
          setTyped(event.currentTarget.value);
        }}
      />
      <datalist id={id}>
        {suggested.map((serialNumber) => (
          <option key={serialNumber} value={serialNumber} />
        ))}
      </datalist>
    </>
  );
}

const NUMBERS = new Intl.NumberFormat("en");
export const number = (value: number | null | undefined): string =>
  value === null || value === undefined ? "–" : NUMBERS.format(value);
