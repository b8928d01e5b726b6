// Outputs, sources and problems, as elements.

import { el } from "./dom.js";

const MOST_CHARACTERS = 20_000;
const LONG = 300;

const isPassage = (value) =>
  value !== null && typeof value === "object" && typeof value.text === "string" &&
  typeof value.id === "string" && typeof value.source === "string";
const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** The outputs of a run by name; one that has no name of its own is shown without one. */
export function outputs(values) {
  const names = Object.keys(values);
  if (names.length === 1 && names[0] === "output") return [shown(values.output)];
  return names.map((name) => el("section", {}, el("h4", {}, name), shown(values[name])));
}

function shown(value, depth = 0) {
  if (value === null) return el("p", { class: "note" }, "none");
  if (value === "") return el("p", { class: "note" }, "empty");
  if (typeof value !== "object") return text(String(value));
  if (isPassage(value)) return passages([value]);
  if (Array.isArray(value) && value.length) {
    if (value.every(isPassage)) return passages(value);
    if (value.every((each) => typeof each === "string")) {
      return el("ol", {}, ...value.map((each) => el("li", {}, text(each))));
    }
    if (depth < 2 && value.every(isRecord) && value.length <= 50) {
      return el("ol", { class: "records" }, ...value.map((each) => el("li", {}, shown(each, depth + 1))));
    }
  }
  if (isRecord(value) && depth < 2) {
    return el("dl", {}, ...Object.entries(value).flatMap(([name, each]) =>
      [el("dt", {}, name), el("dd", {}, shown(each, depth + 1))]));
  }
  const json = JSON.stringify(value, null, 2);
  const cut = json.length > MOST_CHARACTERS;
  return el("pre", { tabindex: 0, "aria-label": "JSON" }, cut ? `${json.slice(0, MOST_CHARACTERS)}\n… and more` : json);
}

const text = (value) => el("p", { class: "text" }, value);

const short = (whole) =>
  whole.length <= LONG ? whole : `${whole.slice(0, LONG).replace(/\s+\S*$/, "")} …`;

function passages(found) {
  return el("ol", { class: "passages" }, ...found.map((passage) => {
    const metadata = Object.entries(passage.metadata ?? {}).map(([name, value]) => `${name} ${value}`);
    const score = passage.score ? [`score ${passage.score.toFixed(3)}`] : [];
    const head = el("p", { class: "source" }, el("cite", {}, passage.source || passage.id),
                    el("span", { class: "note" }, ` ${[...metadata, ...score].join(", ")}`));
    const quoted = el("blockquote", {}, short(passage.text));
    if (passage.text.length <= LONG) return el("li", {}, head, quoted);
    const whole = el("blockquote", {}, passage.text);
    return el("li", {}, head, quoted, el("details", {}, el("summary", {}, "The whole passage"), whole));
  }));
}

/** What went wrong, where, and what to do. */
export function problem({ details }) {
  const { stage, title, detail, hint, where, code, status, cause, attempt, run, line, column, wait } = details;
  const facts = { code, cause, status, where: stage ? null : where, line, column,
                  attempt: attempt > 1 ? attempt : null, run };
  const named = Object.entries(facts).filter(([, value]) => value);
  return el("section", { class: "problem", role: "alert" },
    el("h3", {}, stage ? `Stage “${stage}” failed` : title || "The run failed"),
    detail && el("p", { class: "text" }, detail),
    hint && el("p", {}, `What to do: ${hint}.`),
    wait && el("p", {}, `Try again in ${wait} s.`),
    el("p", { class: "facts note" }, ...named.map(([name, value]) =>
      el("span", {}, `${name} `, el("code", {}, String(value))))));
}
