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

/** Shows a text that somebody chose, isolated so that its direction does not affect the text around it. */
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

/** Shows a port type with its letter and its colour. */
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

/** Shows what went wrong, in words and with the service's own message. */
export function Problem({ failure, retry }: { failure: unknown; retry?: (() => void) | undefined }) {
  if (!failure) return null;
  const words = explain(failure);
  const code = failure instanceof Failure ? failure.code : "";
  const unauthorised = failure instanceof Failure && failure.status === 401;
  // Without a token yet, this is a question and not an error.
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

/** A form for a token, which stays in this tab. */
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

/** How long a search runs before the console shows that it is searching. */
const PATIENCE_MS = 300;

/** Shows that the service is searching, with a button to stop it: it may have to look at every widget. */
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

/** Says that somebody stopped a search, and offers to repeat it. */
export function Stopped({ again }: { again: () => void }) {
  return (
    <p class="nothing" role="status">
      The search was stopped.{" "}
      <button type="button" class="quiet" onClick={again}>
        Search again
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
          // If the browser does not allow copying (without TLS), the text can still be selected.
          navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
        }}
      >
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

/** Offers a text to the browser as a file. */
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
  /** Whether somebody stopped the loading. */
  stopped: boolean;
  reload: () => void;
  stop: () => void;
}

/** Loads something when `key` changes, and cancels loading that is no longer wanted. */
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

/** Calls `changed` whenever the token of this tab changes. */
export function useToken(changed: () => void): void {
  const latest = useRef(changed);
  latest.current = changed;
  useEffect(() => {
    const heard = (): void => latest.current();
    addEventListener("token", heard);
    return () => removeEventListener("token", heard);
  }, []);
}

/** How often to ask whether a standby has been promoted, or again what the caller may do if that is unknown. */
const ROLE_MS = 5000;

/** Loads what the caller may do here. */
export function useRights(): Loaded<Rights> {
  const loaded = useLoaded("rights", (signal) => rights(signal));
  const { value, failure, reload } = loaded;
  const follows = value?.operate === false && value.because === "standby";
  // A missing or refused token is a question to the caller, and only another token answers it.
  const unknown = failure !== null && !(failure instanceof Failure && failure.status === 401);
  useEffect(() => {
    if (!follows && !unknown) return;
    const timer = setInterval(() => {
      // Asked in the background: what is shown stays until there is another answer.
      if (document.visibilityState === "visible") rights().then(({ operate }) => (operate || unknown) && reload(), () => {});
    }, ROLE_MS);
    return () => clearInterval(timer);
  }, [follows, unknown]);
  return loaded;
}

/** Tells a caller who may only read why there are no operations here. */
export function ReadOnly({ rights }: { rights: Rights }) {
  if (rights.operate) return null;
  if (rights.because === "standby") {
    return (
      <p class="card" role="note">
        This is a standby: it shows everything but accepts no changes. Make changes at its primary
        {/* Only web addresses become links. */}
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
      You may only read: your role does not allow changes. To make changes, enter a token with a role that allows them at
      the top.
    </p>
  );
}

const SUGGESTIONS = 8;
/** How long to wait after a key press for the next one. */
const TYPING_MS = 150;

interface SerialNumberProps {
  id: string;
  value: string;
  placeholder?: string | undefined;
  onValue: (value: string) => void;
}

/** A field for the serial number of an existing widget, which suggests those that begin with the typed text. */
export function SerialNumber({ id, value, placeholder, onValue }: SerialNumberProps) {
  const [typed, setTyped] = useState("");
  const [suggested, setSuggested] = useState<string[]>([]);
  useEffect(() => {
    if (!typed) return setSuggested([]);
    const controller = new AbortController();
    const timer = setTimeout(() => {
      // Suggestions are only a help, so they fail silently.
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
