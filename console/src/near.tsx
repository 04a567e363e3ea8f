// A widget's neighbourhood as a graph to walk: a click leads to the next widget.

import { type SimulationLinkDatum, type SimulationNodeDatum, forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Neighbourhood, neighbourhood } from "./api";
import { Port, Problem, Text, WidgetLink, download, to, useLoaded } from "./parts";

const WIDGETS_MAX = 150;
const STEPS = 300;
/** The minimum size of the picture, so that a few widgets are drawn neither large nor, on a phone, small. */
const WIDTH = 720;
const HEIGHT = 400;
/** How often a small graph is placed. A placement takes time with the square of its widgets, so EFFORT_MAX bounds the total. */
const ATTEMPTS_MAX = 40;
const EFFORT_MAX = 3000;
/** The room around the outermost widgets for their names. */
const MARGIN = 60;
const LABEL_MAX = 18;

interface Node extends SimulationNodeDatum {
  id: string;
  name: string;
  x: number;
  y: number;
}

interface Link extends SimulationLinkDatum<Node> {
  port: string;
}

export function NearScreen({ serialNumber }: { serialNumber: string }) {
  const [depth, setDepth] = useState(2);
  // Kept together with its centre: the previous picture stays unchanged until the next one has been loaded.
  const near = useLoaded(`${serialNumber}#${depth}`, async (signal) => ({
    ...(await neighbourhood(serialNumber, depth, WIDGETS_MAX, signal)),
    centre: serialNumber,
  }));
  const picture = useRef<SVGSVGElement>(null);
  const save = (): void => {
    if (picture.current) download("neighbourhood.svg", "image/svg+xml", standalone(picture.current));
  };
  return (
    <>
      <h1>
        Around <Text>{serialNumber}</Text>
      </h1>
      <div class="bar">
        <label class="inline">
          Associations away
          <input
            type="range"
            min="1"
            max="10"
            value={depth}
            aria-valuetext={String(depth)}
            onInput={(event) => setDepth(Number(event.currentTarget.value))}
          />
          <output>{depth}</output>
        </label>
        <a href={to.widget(serialNumber)}>The widget itself</a>
        <button type="button" class="quiet" disabled={!near.value} onClick={save}>
          Export as SVG
        </button>
      </div>
      <Problem failure={near.failure} retry={near.reload} />
      {near.value && (
        <>
          <Graph near={near.value} centre={near.value.centre} picture={picture} />
          <p role="status">
            {near.value.widgets.length} widgets, {near.value.associations.length} associations
            {near.value.truncated && `. There are more: only the nearest ${WIDGETS_MAX} are shown.`}
          </p>
          {!near.value.oneMoment && (
            <p class="faint" role="note">
              The path of a URL cannot contain this serial number, so this picture is made of several lists, one for each
              step. Changes in the meantime may appear only in part.
            </p>
          )}
          <details>
            <summary>As a list</summary>
            <ul class="pairs">
              {near.value.associations.map((pair) => (
                <li key={`${pair.widget1_sn}\0${pair.widget2_sn}\0${pair.port}`}>
                  <WidgetLink serialNumber={pair.widget1_sn} /> <Port port={pair.port} />{" "}
                  <WidgetLink serialNumber={pair.widget2_sn} />
                </li>
              ))}
            </ul>
          </details>
        </>
      )}
    </>
  );
}

function Graph({ near, centre, picture }: { near: Neighbourhood; centre: string; picture: { current: SVGSVGElement | null } }) {
  const { nodes, links, box } = useMemo(() => layout(near, centre), [near, centre]);
  const above = useMemo(() => labelledAbove(nodes, links), [nodes, links]);
  // After a step with the keyboard, the focus moves to the new centre.
  const byKeyboard = useRef(false);
  const walk = (id: string, keyboard = false): void => {
    byKeyboard.current = keyboard;
    location.hash = to.near(id);
  };
  useEffect(() => {
    if (byKeyboard.current) picture.current?.querySelector<SVGElement>(".centre")?.focus();
    byKeyboard.current = false;
  }, [near]);
  return (
    <div class="graph">
      <svg ref={picture} viewBox={box} role="group" aria-label={`The widgets around ${centre}`}>
        {links.map((link, index) => {
          const [from, end] = [link.source as Node, link.target as Node];
          // Associations of the same pair are drawn side by side.
          const bend = (links.slice(0, index).filter((other) => same(other, link)).length * 14) as number;
          const [x, y] = [(from.x + end.x) / 2 + bend, (from.y + end.y) / 2 + bend];
          return (
            <g key={index} class={`edge port-${link.port}`}>
              <path d={`M${from.x} ${from.y}Q${x + bend} ${y + bend} ${end.x} ${end.y}`} />
              <circle cx={x} cy={y} r="9" />
              <text x={x} y={y + 4}>
                {link.port}
              </text>
            </g>
          );
        })}
        {nodes.map((node) => (
          <g
            key={node.id}
            class={node.id === centre ? "node centre" : "node"}
            role="link"
            tabindex={0}
            aria-label={node.id}
            onClick={() => walk(node.id)}
            onKeyDown={(event) => event.key === "Enter" && walk(node.id, true)}
          >
            <title>{node.name ? `${node.id}: ${node.name}` : node.id}</title>
            <rect x={node.x - 40} y={node.y - (above.has(node) ? 32 : 16)} width="80" height="48" />
            <circle cx={node.x} cy={node.y} r={node.id === centre ? 13 : 9} />
            <text x={node.x} y={node.y + (above.has(node) ? -18 : 26)}>
              {short(node.id)}
            </text>
          </g>
        ))}
      </svg>
    </div>
  );
}

const same = (one: Link, other: Link): boolean => one.source === other.source && one.target === other.target;

function short(text: string): string {
  const points = [...text];
  return points.length > LABEL_MAX ? `${points.slice(0, LABEL_MAX - 1).join("")}…` : text;
}

/** Places everything before drawing, so that nothing moves on the screen and the same answer gives the same picture. */
function layout(near: Neighbourhood, centre: string): { nodes: Node[]; links: Link[]; box: string } {
  // A small graph is placed from several starting points; the placement with the fewest crossings is shown.
  const attempts = Math.max(1, Math.min(ATTEMPTS_MAX, Math.floor(EFFORT_MAX / near.widgets.length ** 2)));
  let [best, crossings] = [place(near, centre, 0), Infinity];
  for (let attempt = 0; attempt < attempts && crossings > 0; attempt++) {
    const tried = attempt === 0 ? best : place(near, centre, attempt);
    const crossed = count(tried.links);
    if (crossed < crossings) [best, crossings] = [tried, crossed];
  }
  const { nodes, links } = best;
  const [xs, ys] = [nodes.map((node) => node.x), nodes.map((node) => node.y)];
  const least = Math.min(WIDTH, innerWidth - 2 * MARGIN) / 2;
  const [left, width] = extent(xs, 2 * least);
  const [top, height] = extent(ys, HEIGHT);
  return { nodes, links, box: [left, top, width, height].map(Math.round).join(" ") };
}

/** Returns where a side of the picture begins and how long it is, so that all these places are centred. */
function extent(places: number[], least: number): [number, number] {
  const [low, high] = [Math.min(...places), Math.max(...places)];
  const length = Math.max(high - low, least) + 2 * MARGIN;
  return [(low + high - length) / 2, length];
}

function place(near: Neighbourhood, centre: string, attempt: number): { nodes: Node[]; links: Link[] } {
  const nodes: Node[] = near.widgets.map((widget, index) => ({
    id: widget.serial_number,
    name: widget.name,
    x: Math.cos(index * (1 + attempt)) * 12 * Math.sqrt(index),
    y: Math.sin(index * (1 + attempt)) * 12 * Math.sqrt(index),
    ...(widget.serial_number === centre ? { fx: 0, fy: 0 } : {}),
  }));
  const known = new Set(nodes.map((node) => node.id));
  const links: Link[] = near.associations
    .filter((pair) => known.has(pair.widget1_sn) && known.has(pair.widget2_sn))
    .map((pair) => ({ source: pair.widget1_sn, target: pair.widget2_sn, port: pair.port }));
  const simulation = forceSimulation(nodes)
    .force("link", forceLink<Node, Link>(links).id((node) => node.id).distance(120))
    .force("apart", forceManyBody().strength(-900))
    .force("room", forceCollide(34))
    .force("x", forceX(0).strength(0.05))
    .force("y", forceY(0).strength(0.08))
    .stop();
  for (let step = 0; step < STEPS; step++) simulation.tick();
  return { nodes, links };
}

/** Returns the nodes most of whose lines lead downwards: their names have more room above. */
function labelledAbove(nodes: Node[], links: Link[]): Set<Node> {
  const down = new Map(nodes.map((node) => [node, 0]));
  const lead = (from: Node, end: Node): void => {
    const length = Math.hypot(end.x - from.x, end.y - from.y) || 1;
    // Lines that lead sideways are in nobody's way.
    const steep = (end.y - from.y) / length;
    if (Math.abs(steep) > 0.3) down.set(from, down.get(from)! + Math.sign(steep));
  };
  for (const link of links) {
    const [one, other] = [link.source as Node, link.target as Node];
    lead(one, other);
    lead(other, one);
  }
  return new Set(nodes.filter((node) => down.get(node)! > 0));
}

/** Returns how many pairs of lines cross. */
function count(links: Link[]): number {
  const ends = links.map(({ source, target }) => [source as Node, target as Node] as const);
  const side = (a: Node, b: Node, c: Node): number => (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
  const apart = (a: Node, b: Node, c: Node, d: Node): boolean => side(a, b, c) * side(a, b, d) < 0;
  return ends
    .flatMap(([a, b], index) => ends.slice(index + 1).map(([c, d]) => apart(a, b, c, d) && apart(c, d, a, b)))
    .filter(Boolean).length;
}

/** Characters that XML 1.0 cannot contain, not even escaped. */
const NOT_IN_XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;

/** Returns the picture with its colours included, so that it needs no style sheet. */
function standalone(picture: SVGSVGElement): string {
  const copy = picture.cloneNode(true) as SVGSVGElement;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const originals = picture.querySelectorAll<SVGElement>("path, circle, text");
  copy.querySelectorAll<SVGElement>("path, circle, text").forEach((element, index) => {
    const style = getComputedStyle(originals[index]!);
    for (const property of ["fill", "stroke", "stroke-width", "paint-order", "font-family", "font-size", "font-weight", "text-anchor"]) {
      element.setAttribute(property, style.getPropertyValue(property));
    }
  });
  // A file has no areas to click, and without a style sheet they would be black.
  copy.querySelectorAll("rect").forEach((area) => area.remove());
  return new XMLSerializer().serializeToString(copy).replace(NOT_IN_XML, "\ufffd");
}
