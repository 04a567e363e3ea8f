// The console: chooses the screen that the address names, and draws the frame around it.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import { root, token } from "./api";
import { ChangesScreen } from "./changes";
import { NearScreen } from "./near";
import { OperationsScreen } from "./operations";
import { Overview } from "./overview";
import { Problem, TokenForm } from "./parts";
import { WidgetScreen } from "./widget";
import { WidgetsScreen } from "./widgets";

const SCREENS = [
  ["", "Overview"],
  ["widgets", "Widgets"],
  ["operations", "Operations"],
  ["changes", "Changes"],
] as const;

interface Place {
  screen: string;
  subject: string;
  query: URLSearchParams;
}

function place(): Place {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const slash = path.indexOf("/");
  const screen = slash < 0 ? path : path.slice(0, slash);
  let subject = "";
  try {
    subject = slash < 0 ? "" : decodeURIComponent(path.slice(slash + 1));
  } catch {
    // A truncated address names no subject.
  }
  return { screen, subject, query: new URLSearchParams(query) };
}

function Screen({ screen, subject, query }: Place) {
  switch (screen) {
    case "":
      return <Overview />;
    case "widgets":
      return <WidgetsScreen query={query} />;
    case "widget":
      return <WidgetScreen key={subject} serialNumber={subject} />;
    case "near":
      return <NearScreen serialNumber={subject} />;
    case "operations":
      return <OperationsScreen query={query} />;
    case "changes":
      return <ChangesScreen query={query} />;
    default:
      return <p>There is no such page. Use the tabs above.</p>;
  }
}

/**
 * Contains an error of a screen: the message appears in place of the screen, and the tabs and all other screens keep working.
 * Without this, the previous content would stay, whatever is clicked.
 */
function Guarded(place: Place) {
  const [broken, again] = useErrorBoundary((failure) => reportError(failure));
  // Going to another screen clears the error.
  useEffect(() => again(), [place.screen, place.subject, place.query]);
  if (!broken) return <Screen {...place} />;
  return (
    <>
      <h1>This screen broke</h1>
      <p>This is a fault of the console. It does not affect the service or its data.</p>
      <Problem failure={broken} retry={again} />
    </>
  );
}

function Console() {
  const [here, setHere] = useState(place);
  const [entering, setEntering] = useState(false);
  const [, setTurn] = useState(0);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    let shown = place();
    const moved = (): void => {
      const next = place();
      const same = next.screen === shown.screen && next.subject === shown.subject;
      shown = next;
      setHere(next);
      // Another filter on the same screen does not move the keyboard focus.
      if (same) return;
      // Screen readers and the keyboard continue at the beginning of the new screen.
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    const changed = (): void => setTurn((turn) => turn + 1);
    addEventListener("hashchange", moved);
    addEventListener("token", changed);
    return () => {
      removeEventListener("hashchange", moved);
      removeEventListener("token", changed);
    };
  }, []);
  const tab = { widget: "widgets", near: "widgets" }[here.screen] ?? here.screen;
  useEffect(() => {
    const name = SCREENS.find(([screen]) => screen === tab)?.[1] ?? "";
    // Isolated, because a serial number may change the direction of the text after it.
    const subject = here.subject && `\u2068${here.subject}\u2069`;
    document.title = [subject, name, "widgets"].filter(Boolean).join(" · ");
  }, [here]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href="#/">
          <img src="icon.svg" alt="" width="24" height="24" /> widgets
        </a>
        <nav aria-label="Screens">
          {SCREENS.map(([screen, name]) => (
            <a key={screen} href={`#/${screen}`} aria-current={tab === screen ? "page" : undefined}>
              {name}
            </a>
          ))}
          <a href={root.href}>API</a>
        </nav>
        <button type="button" class="quiet" aria-expanded={entering} onClick={() => setEntering(!entering)}>
          {token.get() ? "Token: set" : "Token"}
        </button>
      </header>
      {entering && (
        <div class="entering">
          <TokenForm close={() => setEntering(false)} />
        </div>
      )}
      <main ref={main} tabIndex={-1} id="main">
        <Guarded {...here} />
      </main>
      <footer class="faint">
        These pages contain third-party software: <a href="licences.md">its licences</a>
      </footer>
    </>
  );
}

render(<Console />, document.getElementById("console")!);
