// The four operations as forms. Refusals are explained in words.

import { useState } from "preact/hooks";
import { type Operation, canBeSentAgain, curl, newKey, operate } from "./api";
import { Card, Copyable, Problem, ReadOnly, SerialNumber, WidgetLink, to, useRights } from "./parts";

interface Field {
  name: string;
  label: string;
  kind: "text" | "widget" | "port" | "slots";
  hint?: string;
}

const SERIAL_NUMBER = "its serial number";

const FORMS: { operation: Operation; title: string; done: string; fields: Field[] }[] = [
  {
    operation: "add_widget",
    title: "Add a widget",
    done: "It is registered.",
    fields: [
      { name: "widget_sn", label: "Serial number", kind: "text", hint: "unique, case-sensitive" },
      { name: "widget_name", label: "Name", kind: "text", hint: "any text" },
      { name: "slots", label: "Slots", kind: "slots" },
    ],
  },
  {
    operation: "associate_widgets",
    title: "Associate two widgets",
    done: "They are associated.",
    fields: [
      { name: "widget1_sn", label: "One widget", kind: "widget", hint: SERIAL_NUMBER },
      { name: "widget2_sn", label: "The other widget", kind: "widget", hint: SERIAL_NUMBER },
      { name: "port", label: "Port", kind: "port" },
    ],
  },
  {
    operation: "remove_association",
    title: "Remove an association",
    done: "The association is removed.",
    fields: [
      { name: "widget1_sn", label: "One widget", kind: "widget", hint: SERIAL_NUMBER },
      { name: "widget2_sn", label: "The other widget", kind: "widget", hint: SERIAL_NUMBER },
      { name: "port", label: "Port", kind: "port" },
    ],
  },
];

export function OperationsScreen({ query }: { query: URLSearchParams }) {
  const { value: rights, failure, reload } = useRights();
  return (
    <>
      <h1>Operations</h1>
      <Problem failure={failure} retry={reload} />
      {rights && <ReadOnly rights={rights} />}
      {rights !== null && (
        <>
          <div class="columns pairwise">
            {FORMS.map((form) => (
              <Form key={form.operation} {...form} given={query} allowed={rights.operate} />
            ))}
            <RemoveForm allowed={rights.operate} />
          </div>
        </>
      )}
    </>
  );
}

type Outcome = { body: Record<string, unknown>; key: string; failure: unknown };

type FormProps = (typeof FORMS)[number] & { given: URLSearchParams; allowed: boolean };

function Form({ operation, title, done, fields, given, allowed }: FormProps) {
  const [values, setValues] = useState<Record<string, string>>({ port: "P", widget1_sn: given.get("widget1_sn") ?? "" });
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [busy, setBusy] = useState(false);
  const body = Object.fromEntries(
    fields.map(({ name, kind }) => {
      const value = values[name] ?? "";
      return [name, kind === "slots" ? [...value.toUpperCase().replace(/[\s,]/g, "")] : value];
    }),
  );
  const send = async (body: Record<string, unknown>, key: string): Promise<void> => {
    setBusy(true);
    const failure = await operate(operation, body, key).then(
      () => null,
      (failure: unknown) => failure,
    );
    setOutcome({ body, key, failure });
    setBusy(false);
  };
  const set = (name: string, value: string): void => setValues({ ...values, [name]: value });
  return (
    <Card title={title}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void send(body, newKey());
        }}
      >
        {fields.map(({ name, label, kind, hint }) => (
          <label key={name}>
            {label}
            <Input
              id={`${operation}-${name}`}
              kind={kind}
              value={values[name] ?? ""}
              hint={hint}
              onValue={(value) => set(name, value)}
            />
          </label>
        ))}
        <button type="submit" disabled={busy || !allowed}>
          {title}
        </button>
      </form>
      {outcome && (
        <div aria-live="polite">
          {outcome.failure ? (
            <Problem
              failure={outcome.failure}
              // With the same key, so that the operation is not applied a second time.
              retry={canBeSentAgain(outcome.failure) ? () => void send(outcome.body, outcome.key) : undefined}
            />
          ) : (
            <p class="done" role="status">
              {done}{" "}
              {["widget_sn", "widget1_sn"]
                .filter((name) => name in outcome.body)
                .map((name) => (
                  <WidgetLink key={name} serialNumber={String(outcome.body[name])} />
                ))}
            </p>
          )}
          <details>
            <summary>As a shell command</summary>
            <Copyable text={curl(operation, outcome.body)} label="As a shell command" />
          </details>
        </div>
      )}
    </Card>
  );
}

/** Leads to the page of the widget, where it can be removed and which shows what goes with it. */
function RemoveForm({ allowed }: { allowed: boolean }) {
  const [value, setValue] = useState("");
  return (
    <Card title="Remove a widget">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          location.hash = to.widget(value);
        }}
      >
        <label>
          Serial number
          <SerialNumber id="remove_widget" value={value} placeholder={SERIAL_NUMBER} onValue={setValue} />
        </label>
        <button type="submit" disabled={!allowed || !value}>
          See what goes with it…
        </button>
      </form>
    </Card>
  );
}

interface InputProps {
  id: string;
  kind: Field["kind"];
  value: string;
  hint: string | undefined;
  onValue: (value: string) => void;
}

function Input({ id, kind, value, hint, onValue }: InputProps) {
  if (kind === "widget") return <SerialNumber id={id} value={value} placeholder={hint} onValue={onValue} />;
  if (kind === "port") {
    return (
      <select value={value} onChange={(event) => onValue(event.currentTarget.value)}>
        {["P", "R", "Q"].map((port) => (
          <option key={port}>{port}</option>
        ))}
      </select>
    );
  }
  return (
    <input
      value={value}
      placeholder={kind === "slots" ? "up to three of P, R, Q, as in PRR" : hint}
      spellcheck={false}
      autocomplete="off"
      autocapitalize={kind === "slots" ? "characters" : "off"}
      onInput={(event) => onValue(event.currentTarget.value)}
    />
  );
}
